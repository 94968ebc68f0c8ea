//! The process: flags, environment, signals, terms, exit code.

use std::{process::ExitCode, time::Duration};

use tokio::{runtime, time::sleep};

use crate::{
    backoff::Trouble,
    cursor::{self, Cursor, Resumed},
    env::Env,
    error::{BoxError, Chain},
    leader::{LeaderError, Term},
    pipeline::{self, Ended},
    shutdown::{self, Shutdown},
    streams::{self, Resource, Work, with_stream},
    telemetry::Logs,
    watch::Watcher,
};

mod check;
mod config;
mod flags;
mod panics;

pub use config::Config;
use flags::{Flags, Invocation};
pub use panics::end_on_panic;

/// `EX_USAGE` and `EX_CONFIG` of sysexits.h.
const EX_USAGE: u8 = 64;
const EX_CONFIG: u8 = 78;
/// Threads beside the first, which reads and publishes: they keep the lock and the connections.
const WORKERS: usize = 2;
/// On top of the grace period, for the last checkpoint and the lock.
const LAST_STEPS: Duration = Duration::from_millis(500);

/// Publishes one stream until it is asked to stop. The whole `main` of a stream's binary.
#[must_use]
pub fn run<R: Resource>() -> ExitCode {
    let name = format!("firehose-{}", R::NAME);
    match flags::parse(&name, None) {
        Invocation::Run(flags) => run_stream::<R>(flags),
        Invocation::Exit(code) => code,
    }
}

/// The command line of the Go tool: `nomad-firehose <stream>`. The whole `main` of that binary.
#[must_use]
pub fn run_named() -> ExitCode {
    let names: Vec<&str> = streams::ALL.iter().map(|(name, ..)| *name).collect();
    match flags::parse("nomad-firehose", Some(&names)) {
        Invocation::Exit(code) => code,
        Invocation::Run(flags) => {
            let stream = flags.stream.clone().unwrap_or_default();
            // The flags name a stream that exists, or there would be nothing to run.
            with_stream(&stream, flags).unwrap_or(ExitCode::from(EX_USAGE))
        }
    }
}

impl Work for Flags {
    type Output = ExitCode;

    fn on<R: Resource>(self) -> ExitCode {
        run_stream::<R>(self)
    }
}

fn run_stream<R: Resource>(flags: Flags) -> ExitCode {
    if flags.schema {
        flags::print(&streams::schema_text::<R>());
        return ExitCode::SUCCESS;
    }
    end_on_panic();
    let env = Env::process();
    let logs = Logs::from_env(&env, flags.log_level, flags.log_format);
    let config = Config::from_env::<R>(&env);
    let unknown = env.unknown();
    let (logs, config) = match env.check(logs.and_then(|logs| Ok((logs, config?)))) {
        Ok(both) => both,
        Err(problems) => {
            problems.iter().for_each(|it| eprintln!("{it}"));
            unknown.iter().for_each(|it| eprintln!("{it}"));
            return ExitCode::from(EX_CONFIG);
        }
    };
    logs.start();
    unknown.iter().for_each(|it| tracing::warn!("{it}"));
    let runtime = runtime::Builder::new_multi_thread().worker_threads(WORKERS).enable_all().build();
    let ended = runtime.map_err(BoxError::from).and_then(|runtime| {
        let ended = runtime.block_on(async {
            if flags.check {
                return Ok(check::check::<R>(&config).await);
            }
            until_signalled::<R>(config).await.map(|()| true)
        });
        // A write to a pipe that nobody reads would keep the runtime for ever.
        runtime.shutdown_background();
        ended
    });
    match ended {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(err) => {
            tracing::error!(error = %Chain(&*err), "cannot go on");
            ExitCode::FAILURE
        }
    }
}

/// Publishes until the first signal, and for the grace period after it; a second signal ends the
/// process at once.
async fn until_signalled<R: Resource>(config: Config) -> Result<(), BoxError> {
    let (trigger, stop) = shutdown::channel();
    let limit = config.grace + LAST_STEPS;
    let signals = async {
        signal().await;
        tracing::info!("asked to stop");
        trigger.stop();
        tokio::select! {
            () = signal() => tracing::warn!("asked again: leaving at once"),
            () = sleep(limit) => tracing::warn!(
                "the grace period is over: leaving without waiting any longer. The lock is free \
                 once its session has expired"
            ),
        }
    };
    let work = async {
        let ended = lead::<R>(&config, &stop).await;
        config.delivery.sink().close().await;
        ended
    };
    tokio::select! {
        ended = work => ended?,
        () = signals => (),
    }
    tracing::info!(counted = config.metrics.counted(), "stopped");
    Ok(())
}

/// One term after the other, until asked to stop.
pub async fn lead<R: Resource>(config: &Config, stop: &Shutdown) -> Result<(), BoxError> {
    tracing::info!(
        stream = R::NAME,
        nomad = config.nomad.name(),
        token = config.nomad.token(),
        namespace = %config.scope.namespace,
        version = crate::VERSION,
        "started"
    );
    while let Some(term) = config.leader.elect(stop).await? {
        config.metrics.terms.one();
        let ended = serve_term::<R>(config, &*term, stop).await;
        term.resign().await;
        match ended? {
            Ended::Stopped => return Ok(()),
            Ended::Over => tracing::warn!(stream = R::NAME, "the term is over; competing again"),
        }
    }
    Ok(())
}

async fn serve_term<R: Resource>(
    config: &Config,
    term: &dyn Term,
    stop: &Shutdown,
) -> Result<Ended, BoxError> {
    let cursor = tokio::select! {
        biased;
        () = term.over() => return Ok(Ended::Over),
        () = stop.requested() => return Ok(Ended::Stopped),
        cursor = take_up::<R>(config, term) => cursor,
    };
    let watcher = Watcher::<R>::new(
        config.nomad.clone(),
        config.scope.clone(),
        &cursor,
        config.metrics.clone(),
    );
    let (delivery, every) = (&config.delivery, config.checkpoint);
    let ended =
        pipeline::serve(watcher, cursor, delivery, term, stop, every, &config.metrics).await;
    Ok(ended?)
}

/// Where the term takes up. What cannot be read is tried again: starting over would repeat
/// everything.
async fn take_up<R: Resource>(config: &Config, term: &dyn Term) -> Cursor {
    let mut trouble = Trouble::new(Duration::from_millis(500), Duration::from_secs(15));
    let saved = loop {
        match term.load().await {
            Ok(saved) => break saved,
            Err(LeaderError::Over) => std::future::pending().await,
            Err(err) => {
                let reason = Chain(&err).to_string();
                if trouble.is_news(reason.clone()) {
                    tracing::error!(
                        error = reason,
                        "the checkpoint cannot be read; it is tried again, and nothing is \
                         published until then"
                    );
                }
                trouble.backoff.wait().await;
            }
        }
    };
    let scope = format!("{} {}", config.scope.source, config.scope.namespace);
    let (cursor, resumed) = Cursor::resume(R::KIND, saved, config.start, &scope, cursor::now());
    match resumed {
        Resumed::Checkpoint => {
            tracing::info!(stream = R::NAME, floor = %cursor.floor(), "elected; going on from the checkpoint");
        }
        Resumed::OtherScope { was } => tracing::warn!(
            stream = R::NAME,
            was,
            is = scope,
            "elected; the checkpoint was made in another namespace or region. What is older than \
             it is passed over here: to publish that too, stop every copy and delete the \
             checkpoint"
        ),
        Resumed::FirstStart(start) => {
            tracing::info!(stream = R::NAME, ?start, "elected; there is no checkpoint yet");
        }
        Resumed::GoTool { value, keeps_tails } => tracing::warn!(
            stream = R::NAME,
            value,
            keeps_tails,
            "elected; the Go tool has published since our last checkpoint, or before our first: \
             going on from its position. Some records may be published again"
        ),
        Resumed::Corrupt { why, value } => tracing::error!(
            stream = R::NAME,
            why,
            go_tools_value = value,
            "elected; our checkpoint cannot be read. Going on from the Go tool's position where it \
             is an index, else publishing all that Nomad holds"
        ),
    }
    cursor
}

/// The first of the signals that ask a process to stop.
#[cfg(unix)]
async fn signal() {
    use tokio::signal::unix::{SignalKind, signal};
    let (Ok(mut terminate), Ok(mut interrupt)) =
        (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
    else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = terminate.recv() => (),
        _ = interrupt.recv() => (),
    }
}

/// The first of the events of a console that ask a process to stop. Windows ends the process a few
/// seconds after one of the last two, whatever it does.
#[cfg(windows)]
async fn signal() {
    use tokio::signal::windows::{ctrl_break, ctrl_c, ctrl_close, ctrl_shutdown};
    let (Ok(mut interrupt), Ok(mut pause), Ok(mut close), Ok(mut shutdown)) =
        (ctrl_c(), ctrl_break(), ctrl_close(), ctrl_shutdown())
    else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = interrupt.recv() => (),
        _ = pause.recv() => (),
        _ = close.recv() => (),
        _ = shutdown.recv() => (),
    }
}
