//! Logs, on standard error: standard output is for records.

use std::{
    fmt,
    io::{self, Write},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::SystemTime,
};

use tokio::time::Instant;
use tracing::{
    Event, Level, Subscriber,
    callsite::Identifier,
    field::{Field, Visit},
};
use tracing_subscriber::{
    Layer, Registry,
    filter::Targets,
    layer::{Context, SubscriberExt},
};

use crate::env::{Env, Noted};

mod filter;
mod layout;
mod limit;

pub use filter::MODULES;
pub use layout::Layout;
#[cfg(feature = "syslog")]
pub(crate) use layout::host;
use layout::{Entry, Value};
use limit::{LeftOut, Limit};

/// What the names of our own modules begin with.
const CRATE: &str = "nomad_firehose";

/// How much is logged, and how it is written.
#[derive(Clone, Debug)]
pub struct Logs {
    filter: Targets,
    layout: Layout,
}

/// Logs that are written. Once dropped, it is said what was left out last.
#[derive(Debug)]
pub struct Started(Arc<Lines>);

/// Where every entry becomes a line.
#[derive(Debug)]
struct Lines {
    layout: Layout,
    limit: Mutex<Limit<Identifier>>,
}

struct Writing(Arc<Lines>);

impl Logs {
    /// What the environment says, unless the command line says otherwise.
    pub fn from_env(
        env: &Env,
        level: Option<String>,
        layout: Result<Layout, Noted>,
    ) -> Result<Self, Noted> {
        let level = level.map_or_else(|| env.or("LOG_LEVEL", "info".to_owned()), Ok);
        let filter =
            level.and_then(|it| filter::parse(&it).map_err(|why| env.note("LOG_LEVEL", why)));
        Ok(Self { filter: filter?, layout: layout? })
    }

    /// Starts logging. Only the first call in a process counts.
    #[must_use]
    pub fn start(&self) -> Started {
        let lines = Arc::new(Lines { layout: self.layout.clone(), limit: Mutex::default() });
        let logs = Registry::default().with(self.filter.clone()).with(Writing(lines.clone()));
        let _ = tracing::subscriber::set_global_default(logs);
        Started(lines)
    }
}

impl Lines {
    fn limit(&self) -> MutexGuard<'_, Limit<Identifier>> {
        self.limit.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn summary(&self, left_out: Vec<LeftOut>) -> String {
        left_out.into_iter().map(|it| self.layout.line(&it.into_entry())).collect()
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        let rest = self.0.limit().take_all();
        write(&self.0.summary(rest));
    }
}

impl<S: Subscriber> Layer<S> for Writing {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let lines = &self.0;
        let entry = Entry::of(event);
        let now = Instant::now();
        let (over, admitted) = {
            let mut limit = lines.limit();
            let over = limit.take_over(now);
            (over, limit.admits(event.metadata().callsite(), &entry, now))
        };
        let mut text = lines.summary(over);
        if admitted {
            text.push_str(&lines.layout.line(&entry));
        }
        write(&text);
    }
}

/// Lines that are written at once are not mixed with others.
fn write(text: &str) {
    if !text.is_empty() {
        // There is no other place to say that it failed.
        let _ = io::stderr().lock().write_all(text.as_bytes());
    }
}

impl Entry {
    fn of(event: &Event<'_>) -> Self {
        let metadata = event.metadata();
        let mut entry = Self::new(*metadata.level(), metadata.target(), String::new());
        event.record(&mut entry);
        if entry.message.is_empty() {
            entry.message = metadata.name().to_owned();
        }
        entry
    }

    fn new(level: Level, target: &str, message: String) -> Self {
        let own = target.strip_prefix(CRATE).and_then(|it| it.strip_prefix("::"));
        let module = own.unwrap_or(target).to_owned();
        Self { time: SystemTime::now(), level, module, message, fields: Vec::new() }
    }

    fn push(&mut self, field: &Field, value: Value) {
        self.fields.push((field.name(), value));
    }
}

impl Visit for Entry {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        match field.name() {
            "message" => self.message = format!("{value:?}"),
            _ => self.push(field, Value::Shown(format!("{value:?}"))),
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            "message" => value.clone_into(&mut self.message),
            _ => self.push(field, Value::Text(value.to_owned())),
        }
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.push(field, Value::Number(value.into()));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.push(field, Value::Number(value.into()));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.push(field, Value::Bool(value));
    }
}
