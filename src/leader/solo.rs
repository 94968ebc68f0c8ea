//! No election: one machine, one process, and a checkpoint in a directory or in memory.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, Write},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use tokio::time::sleep;

use super::{Leader, LeaderError, Term};
use crate::{
    cursor::{self, Cursor, Encoded, Loading, Saved},
    env::{Env, Noted},
    finding::Finding,
    metrics::Metrics,
    shutdown::Shutdown,
};

mod check;

/// Between attempts to lock the file; a file lock cannot be waited for and given up.
const LOCK_WAIT: Duration = Duration::from_secs(1);

/// Elected as soon as no other process on this machine has the lock file.
#[derive(Clone, Debug)]
pub(super) struct Solo {
    dir: Option<PathBuf>,
    stream: &'static str,
    memory: Arc<Mutex<Option<Cursor>>>,
    metrics: Arc<Metrics>,
}

impl Solo {
    pub(super) fn from_env(env: &Env, stream: &'static str) -> Result<Self, Noted> {
        let name = "NOMAD_FIREHOSE_STATE_DIR";
        let dir = env.optional::<PathBuf>(name)?;
        if let Some(dir) = &dir
            && !env.is_looking()
            && let Err(err) = fs::create_dir_all(dir)
        {
            return Err(env.note(name, format!("cannot make `{}`: {err}", dir.display())));
        }
        Ok(Self::new(dir, stream))
    }

    pub(super) fn new(dir: Option<PathBuf>, stream: &'static str) -> Self {
        Self { dir, stream, memory: Arc::default(), metrics: Arc::default() }
    }

    fn path(&self, dir: &Path, suffix: &str) -> PathBuf {
        dir.join(format!("{}.{suffix}", self.stream))
    }
}

#[async_trait]
impl Leader for Solo {
    async fn elect(&self, stop: &Shutdown) -> Result<Option<Box<dyn Term>>, LeaderError> {
        let solo = self.clone();
        let Some(dir) = &self.dir else {
            return Ok(Some(Box::new(SoloTerm { solo, _lock: None })));
        };
        let path = self.path(dir, "lock");
        let doing = || format!("lock `{}`", path.display());
        let file = OpenOptions::new().write(true).create(true).truncate(false).open(&path);
        let file = file.map_err(|err| LeaderError::unavailable(doing(), err))?;
        let mut said = false;
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(Some(Box::new(SoloTerm { solo, _lock: Some(file) }))),
                Err(TryLockError::WouldBlock) => {
                    if !said {
                        tracing::info!(lock = %path.display(), "standing by: another process has the lock");
                        self.metrics.stands_by();
                        said = true;
                    }
                }
                Err(TryLockError::Error(err)) => {
                    return Err(LeaderError::unavailable(doing(), err));
                }
            }
            tokio::select! {
                () = stop.requested() => return Ok(None),
                () = sleep(LOCK_WAIT) => (),
            }
        }
    }

    async fn check(&self) -> Vec<Finding> {
        self.findings().await
    }

    fn counts_in(&mut self, metrics: &Arc<Metrics>) {
        metrics.health.leader.is_own();
        self.metrics = metrics.clone();
    }
}

/// A term that lasts as long as the process.
struct SoloTerm {
    solo: Solo,
    /// Unlocked when it is closed.
    _lock: Option<File>,
}

#[async_trait]
impl Term for SoloTerm {
    async fn load(&self) -> Result<Saved, LeaderError> {
        let Some(dir) = self.solo.dir.clone() else {
            let memory = self.solo.memory.lock().unwrap_or_else(PoisonError::into_inner);
            return Ok(memory
                .as_ref()
                .map_or(Saved::Nothing, |it| Saved::Ours(Box::new(it.share()))));
        };
        let head_path = self.solo.path(&dir, "cursor");
        let doing = format!("read the checkpoint `{}`", head_path.display());
        let shown = dir.display().to_string();
        let solo = self.solo.clone();
        let read = blocking(move || {
            let Some(head) = read(&head_path)? else { return Ok((Saved::Nothing, 0)) };
            let mut loading = Loading::new(Some(&head));
            for number in 0..loading.shards() {
                let shard = read(&solo.path(&dir, &format!("cursor.{number}")))?;
                loading.add(number, shard.as_deref());
            }
            Ok(loading.finish(None))
        });
        let (saved, damaged) = read.await.map_err(|err| LeaderError::unavailable(doing, err))?;
        super::report_damaged(damaged, &shown);
        Ok(saved)
    }

    async fn save(&self, cursor: &mut Cursor) -> Result<(), LeaderError> {
        let Some(dir) = self.solo.dir.clone() else {
            // A tail is true on its own, so it does no harm that these move on before the next save.
            *self.solo.memory.lock().unwrap_or_else(PoisonError::into_inner) = Some(cursor.share());
            return Ok(());
        };
        let Encoded { shards, head, .. } = cursor.encode(cursor::now());
        let failed = |err| {
            let doing = format!("save the checkpoint in `{}`", dir.display());
            LeaderError::unavailable(doing, err)
        };
        for number in shards {
            let (path, bytes) =
                (self.solo.path(&dir, &format!("cursor.{number}")), cursor.shard(number));
            replace(path, bytes).await.map_err(failed)?;
        }
        replace(self.solo.path(&dir, "cursor"), head).await.map_err(failed)?;
        cursor.saved();
        Ok(())
    }

    async fn over(&self) {
        std::future::pending().await
    }

    fn holds(&self) -> bool {
        true
    }

    async fn resign(self: Box<Self>) {}
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|err| Err(io::Error::other(err)))
}

fn read(path: &Path) -> io::Result<Option<Vec<u8>>> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(err) if err.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(err) => Err(err),
    }
}

/// Replaces a file so that a crash leaves the old one or the new one, whole.
async fn replace(path: PathBuf, bytes: Vec<u8>) -> io::Result<()> {
    blocking(move || {
        let mut name = path.file_name().unwrap_or_default().to_owned();
        name.push(".new");
        let new = path.with_file_name(name);
        let mut file = File::create(&new)?;
        file.write_all(&bytes)?;
        file.sync_all()?;
        fs::rename(&new, &path)?;
        // The name is in the directory, which is written on its own. Windows cannot open one.
        #[cfg(unix)]
        if let Some(dir) = path.parent() {
            File::open(dir)?.sync_all()?;
        }
        Ok(())
    })
    .await
}
