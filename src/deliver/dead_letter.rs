//! Where records go that the sink can never take.

use std::{
    fs::{File, OpenOptions},
    io::{self, Write},
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
};

use crate::{
    env::{Env, Noted},
    failpoint::{self, Point},
    record::{Record, json},
};

/// A file that grows by one JSON document per line, each with the record's `id`, the `reason` and
/// the `body`. A line is on the disk before its record is given up.
pub(super) struct DeadLetter {
    path: PathBuf,
    file: Arc<Mutex<File>>,
}

/// A dead letter could not be written.
#[derive(Debug, thiserror::Error)]
#[error("cannot append to NOMAD_FIREHOSE_DEAD_LETTER `{path}`; make room or permission there")]
pub(super) struct DeadLetterError {
    path: String,
    #[source]
    source: io::Error,
}

impl DeadLetter {
    /// The file that the environment names, opened.
    pub(super) fn from_env(env: &Env) -> Result<Option<Self>, Noted> {
        let name = "NOMAD_FIREHOSE_DEAD_LETTER";
        let Some(path) = env.optional::<PathBuf>(name)? else { return Ok(None) };
        if env.is_looking() {
            return Ok(None);
        }
        match OpenOptions::new().append(true).create(true).open(&path) {
            Ok(file) => Ok(Some(Self { path, file: Arc::new(Mutex::new(file)) })),
            Err(err) => Err(env.note(name, format!("cannot open `{}`: {err}", path.display()))),
        }
    }

    /// Adds a record.
    pub(super) async fn append(
        &self,
        record: &Record,
        reason: String,
    ) -> Result<(), DeadLetterError> {
        let id = json::quoted(&record.meta.id);
        let reason = json::quoted(&reason);
        let mut line = format!(r#"{{"id":{id},"reason":{reason},"body":"#).into_bytes();
        line.extend_from_slice(&record.body);
        line.extend_from_slice(b"}\n");
        let file = self.file.clone();
        let written = tokio::task::spawn_blocking(move || {
            let mut file = file.lock().unwrap_or_else(PoisonError::into_inner);
            let before = file.metadata()?.len();
            let written = file.write_all(&line).and_then(|()| file.sync_data());
            if written.is_err() {
                // Half a line would spoil the next one.
                file.set_len(before)?;
            }
            written
        });
        let written = async { written.await.unwrap_or_else(|err| Err(io::Error::other(err))) };
        failpoint::around(Point::DeadLetter, written)
            .await
            .map_err(|source| DeadLetterError { path: self.path.display().to_string(), source })
    }
}
