//! The process: flags, environment, signals, terms, exit code.

use std::{convert::Infallible, process::ExitCode, time::Duration};

use tokio::{runtime, time::sleep};
use tracing::Level;

use crate::{
    admin,
    backoff::Trouble,
    cursor::{self, Cursor, Resumed},
    env::Env,
    error::{BoxError, Chain, brief},
    leader::{LeaderError, Term},
    metrics::{Metrics, Role},
    pipeline::{self, Ended},
    shutdown::{self, Shutdown},
    streams::{self, Resource, Work, with_stream},
    telemetry::{Layout, Logs},
    watch::Watcher,
};

mod check;
mod config;
mod dry_run;
mod flags;
mod health;
mod once;
mod panics;
mod signals;

pub use config::Config;
use flags::{Flags, Invocation};
pub use once::{Once, once};
pub use panics::end_on_panic;
use signals::Signals;

/// `EX_USAGE` and `EX_CONFIG` of sysexits.h.
const EX_USAGE: u8 = 64;
const EX_CONFIG: u8 = 78;
/// Threads beside the first, which reads and publishes: they keep the lock and the connections.
const WORKERS: usize = 2;
/// How often the main loop shows that it goes on.
const BEAT: Duration = Duration::from_secs(1);
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
        flags::print(R::SCHEMA);
        return ExitCode::SUCCESS;
    }
    end_on_panic();
    let mut env = Env::process();
    if flags.health {
        return health::health(env);
    }
    if flags.check {
        env.only_look();
    }
    let layout = Layout::from_env(&env, R::NAME, flags.log_format.clone());
    let logs = Logs::from_env(&env, flags.log_level.clone(), layout.clone());
    let _started = logs.as_ref().ok().map(Logs::start);
    let config = match flags.dry_run {
        true => Config::dry_run::<R>(&env),
        false => Config::from_env::<R>(&env),
    };
    let places = check::Places::from_env(&env, flags.dry_run);
    let unknown = env.unknown();
    let (config, places) = match env.check(logs.and_then(|_| Ok((config?, places?)))) {
        Ok(both) => both,
        Err(problems) => {
            // Where the format itself is wrong, they are text.
            let layout = layout.unwrap_or_default();
            problems.iter().for_each(|it| layout.print(Level::ERROR, &it.to_string()));
            unknown.iter().for_each(|it| layout.print(Level::WARN, it));
            return ExitCode::from(EX_CONFIG);
        }
    };
    for error in &unknown {
        tracing::warn!(error, "a variable has no effect; check its name");
    }
    let runtime = runtime::Builder::new_multi_thread().worker_threads(WORKERS).enable_all().build();
    let ended = runtime.map_err(BoxError::from).and_then(|runtime| {
        let ended = runtime.block_on(async {
            if flags.check {
                return Ok(check::check::<R>(&config, &flags, &places, &unknown).await);
            }
            if flags.dry_run {
                tracing::info!("a dry run: no lock is taken, no checkpoint is kept");
            }
            until_signalled::<R>(config, flags.once).await
        });
        // A write to a pipe that nobody reads would keep the runtime for ever.
        runtime.shutdown_background();
        ended
    });
    match ended {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(err) if flags.dry_run && dry_run::reader_is_gone(&*err) => ExitCode::SUCCESS,
        Err(err) => {
            tracing::error!(error = %Chain(&*err), "cannot go on; mend what the error says, and start it again");
            ExitCode::FAILURE
        }
    }
}

/// Publishes until the first signal, and for the grace period after it; a second signal ends the
/// process at once. Says whether all is done that was to be.
async fn until_signalled<R: Resource>(config: Config, once: bool) -> Result<bool, BoxError> {
    let _served = match &config.listen {
        Some(listen) => Some(admin::serve(listen, &config.metrics).await?),
        None => None,
    };
    let (trigger, stop) = shutdown::channel();
    let limit = config.grace + LAST_STEPS;
    let mut asked = Signals::new();
    let signals = async {
        asked.next().await;
        tracing::info!("asked to stop");
        config.metrics.health.enter(Role::Stopping);
        trigger.stop();
        tokio::select! {
            () = asked.next() => tracing::warn!(
                "asked again: leaving at once. What is not confirmed is published again; to avoid \
                 that, send one signal and wait"
            ),
            () = sleep(limit) => tracing::warn!(
                "the grace period is over: leaving without waiting any longer. The lock is free \
                 once it has expired; if this recurs, look at what does not answer"
            ),
        }
    };
    let work = async {
        let ended = match once {
            true => self::once::<R>(&config, &stop).await.map(|it| it == Once::Complete),
            false => lead::<R>(&config, &stop).await.map(|()| true),
        };
        config.delivery.sink().close().await;
        ended
    };
    let done = tokio::select! {
        ended = work => ended?,
        () = signals => !once,
        never = beat(&config.metrics) => match never {},
    };
    tracing::info!(counted = config.metrics.counted(), "stopped");
    Ok(done)
}

/// Shows that the main thread goes on. What it does is in one future with this.
async fn beat(metrics: &Metrics) -> Infallible {
    loop {
        metrics.health.beat();
        sleep(BEAT).await;
    }
}

/// One term after the other, until asked to stop.
pub async fn lead<R: Resource>(config: &Config, stop: &Shutdown) -> Result<(), BoxError> {
    log_started::<R>(config);
    while let Some(term) = config.leader.elect(stop).await? {
        config.metrics.term_began();
        let ended = serve_term::<R>(config, &*term, stop).await;
        config.metrics.term_ended();
        term.resign().await;
        match ended? {
            Ended::Stopped | Ended::Complete => return Ok(()),
            Ended::Over => log_over::<R>(),
        }
    }
    Ok(())
}

fn log_over<R: Resource>() {
    tracing::warn!(
        stream = R::NAME,
        "the term is over; competing again. If it recurs, look at the load and network of what \
         elects, or raise NOMAD_FIREHOSE_SESSION_TTL"
    );
}

fn log_started<R: Resource>(config: &Config) {
    tracing::info!(
        stream = R::NAME,
        nomad = config.nomad.name(),
        token = config.nomad.token(),
        namespace = %config.scope.namespace,
        version = crate::VERSION,
        "started"
    );
}

async fn serve_term<R: Resource>(
    config: &Config,
    term: &dyn Term,
    stop: &Shutdown,
) -> Result<Ended, BoxError> {
    let (mut watcher, cursor) = match begin::<R>(config, term, stop).await {
        Ok(begun) => begun,
        Err(ended) => return Ok(ended),
    };
    let (delivery, every) = (&config.delivery, config.checkpoint);
    let ended =
        pipeline::serve(&mut watcher, cursor, delivery, term, stop, every, &config.metrics).await;
    Ok(ended?)
}

/// Where a term begins; or how it has ended, before that was known.
async fn begin<R: Resource>(
    config: &Config,
    term: &dyn Term,
    stop: &Shutdown,
) -> Result<(Watcher<R>, Cursor), Ended> {
    let cursor = tokio::select! {
        biased;
        () = term.over() => return Err(Ended::Over),
        () = stop.requested() => return Err(Ended::Stopped),
        cursor = take_up::<R>(config, term) => cursor,
    };
    let (nomad, scope) = (config.nomad.clone(), config.scope.clone());
    let watcher = Watcher::<R>::new(nomad, scope, &cursor, config.metrics.clone());
    Ok((watcher, cursor))
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
                         published until then. The error says what to mend"
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
            was = brief(&was),
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
            go_value = value,
            keeps_tails,
            "elected; the Go tool has published since our last checkpoint, or before our first: \
             going on from its position. Some records may be published again. If the Go tool was \
             not to run, stop it"
        ),
        Resumed::Corrupt { why, value } => tracing::error!(
            stream = R::NAME,
            error = brief(&why),
            go_value = value,
            "elected; our checkpoint cannot be read. Going on from the Go tool's position where it \
             is an index, else publishing all that Nomad holds. If a newer version wrote it, start \
             that one again; else expect duplicates"
        ),
    }
    cursor
}
