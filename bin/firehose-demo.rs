//! The whole thing on one machine with nothing installed: stand-ins for Nomad and Consul come up on
//! loopback with a small living cluster, and every stream runs against them through the same
//! library and the same HTTP as in production.

use std::{
    future::Future,
    io::{self, IsTerminal, Write},
    pin::Pin,
    process::ExitCode,
    time::Duration,
};

use argh::FromArgs;
use async_trait::async_trait;
use futures::future::join_all;
use nomad_firehose::{
    deliver::Delivery,
    env::Env,
    error::{BoxError, Chain},
    record::Record,
    run::{Config, lead},
    shutdown::{self, Shutdown},
    sink::{DeliverError, Sink},
    standin::{cluster, consul, nomad, serve},
    streams::{self, Resource, Work, with_stream},
};
use serde_json::Value;

/// Shows every stream alive against a small cluster of stand-ins: readable on a terminal, one JSON
/// document per line when piped. Ctrl-C ends it.
#[derive(FromArgs)]
struct Arguments {
    /// show this stream only
    #[argh(option)]
    stream: Option<String>,
    /// what the cluster does is drawn from this number
    #[argh(option, default = "7")]
    seed: u64,
}

fn main() -> ExitCode {
    let arguments: Arguments = argh::from_env();
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let ended = runtime.map_err(BoxError::from).and_then(|runtime| {
        let ended = runtime.block_on(demo(arguments));
        runtime.shutdown_background();
        ended
    });
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(err) => {
            eprintln!("{}", Chain(&*err));
            ExitCode::FAILURE
        }
    }
}

async fn demo(arguments: Arguments) -> Result<(), BoxError> {
    let all = streams::ALL.iter().map(|(name, ..)| *name);
    let wanted: Vec<&str> = match &arguments.stream {
        Some(stream) if !all.clone().any(|it| it == stream) => {
            let known = all.collect::<Vec<_>>().join(", ");
            return Err(format!("`{stream}` is not one of the streams: {known}").into());
        }
        Some(stream) => vec![stream],
        None => all.collect(),
    };
    let (nomad, consul) = (nomad::Nomad::new(nomad::Version::V2_0), consul::Consul::new());
    let (nomad_door, consul_door) = (serve::bind().await?, serve::bind().await?);
    let addresses = (
        format!("http://{}", nomad_door.local_addr()?),
        format!("http://{}", consul_door.local_addr()?),
    );
    let pretty = io::stdout().is_terminal();
    if pretty {
        eprintln!("stand-ins: Nomad at {}, Consul at {}; Ctrl-C ends it", addresses.0, addresses.1);
    }
    let (trigger, stop) = shutdown::channel();
    let streams = wanted.iter().filter_map(|name| {
        let (addresses, stop) = (addresses.clone(), stop.clone());
        with_stream(name, Stream { addresses, stop, pretty })
    });
    tokio::select! {
        ended = join_all(streams) => ended.into_iter().collect::<Result<Vec<()>, _>>().map(|_| ()),
        served = serve::serve(nomad.router(), nomad_door, std::future::pending()) => Ok(served?),
        served = serve::serve(consul.router(), consul_door, std::future::pending()) => Ok(served?),
        () = cluster::run(nomad.clone(), arguments.seed) => Ok(()),
        () = async {
            let _ = tokio::signal::ctrl_c().await;
            trigger.stop();
            // Time to give the locks back, as in production.
            tokio::time::sleep(Duration::from_secs(1)).await;
        } => Ok(()),
    }
}

/// Runs one of the streams.
struct Stream {
    addresses: (String, String),
    stop: Shutdown,
    pretty: bool,
}

impl Work for Stream {
    type Output = Pin<Box<dyn Future<Output = Result<(), BoxError>> + Send>>;

    fn on<R: Resource>(self) -> Self::Output {
        let Self { addresses: (nomad, consul), stop, pretty } = self;
        Box::pin(async move {
            let env = Env::from([
                ("NOMAD_ADDR", nomad.as_str()),
                ("CONSUL_HTTP_ADDR", consul.as_str()),
                ("SINK_TYPE", "stdout"),
            ]);
            let config = Config::from_env::<R>(&env);
            let mut config = env.check(config).map_err(|problems| {
                problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
            })?;
            if pretty {
                let metrics = config.metrics.clone();
                config.delivery = Delivery::new(Box::new(Terminal), config.grace, metrics);
            }
            lead::<R>(&config, &stop).await
        })
    }
}

/// A line per record that a person can read.
struct Terminal;

#[async_trait]
impl Sink for Terminal {
    async fn deliver(&self, records: &[Record]) -> Result<(), DeliverError> {
        let mut out = io::stdout().lock();
        for record in records {
            let line = line(record);
            writeln!(out, "{line}").map_err(|err| DeliverError::Fatal(err.into()))?;
        }
        Ok(())
    }
}

fn line(record: &Record) -> String {
    let body: Value = serde_json::from_slice(&record.body).unwrap_or_default();
    let text = |path: &str| match body.pointer(path) {
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
        None => String::new(),
    };
    let (colour, said) = match record.stream {
        "allocations" => (
            36,
            format!(
                "{} {}: {} ({})",
                text("/Name"),
                text("/TaskName"),
                text("/TaskEvent/Type"),
                text("/TaskEvent/DisplayMessage")
            ),
        ),
        "nodes" => (
            33,
            format!("{} {} {}", text("/Name"), text("/Status"), text("/SchedulingEligibility")),
        ),
        "evaluations" => {
            (90, format!("{} {} {}", text("/JobID"), text("/TriggeredBy"), text("/Status")))
        }
        "deployments" => {
            (35, format!("{} {} {}", text("/JobID"), text("/Status"), text("/StatusDescription")))
        }
        _ => (32, format!("{} {} {}", text("/ID"), text("/Type"), text("/Status"))),
    };
    format!(
        "\x1b[{colour}m{:<13}\x1b[0m \x1b[2m{:>6}\x1b[0m {said}",
        record.stream, record.meta.index.0
    )
}
