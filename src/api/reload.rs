//! What is made of certificates and keys, made again once their files hold others.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

use super::certificates::{Files, Loaded};
use crate::error::{BoxError, Chain};

/// The files are looked at this often at most, and only when something is to be sent.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// Something made of files.
#[derive(Clone)]
pub(crate) struct Reloaded<T>(Arc<Inner<T>>);

struct Inner<T> {
    files: Files,
    make: Make<T>,
    latest: Mutex<Latest<T>>,
}

type Make<T> = Box<dyn Fn(Loaded) -> Result<T, BoxError> + Send + Sync>;

struct Latest<T> {
    value: T,
    /// What was in the files at the last attempt, whether it could be used or not.
    digest: u64,
    looked: Instant,
}

impl<T: Clone> Reloaded<T> {
    /// Makes it of what was loaded from the files.
    pub(super) fn new(
        files: Files,
        loaded: Loaded,
        make: impl Fn(Loaded) -> Result<T, BoxError> + Send + Sync + 'static,
    ) -> Result<Self, BoxError> {
        let digest = loaded.digest;
        let latest = Latest { value: make(loaded)?, digest, looked: Instant::now() };
        Ok(Self(Arc::new(Inner { files, make: Box::new(make), latest: Mutex::new(latest) })))
    }

    /// What the files make now, or made last: a pair that is being replaced does not fit for a
    /// moment.
    pub(crate) fn current(&self) -> T {
        let Inner { files, make, latest } = &*self.0;
        let mut latest = latest.lock().unwrap_or_else(PoisonError::into_inner);
        if files.is_empty() || latest.looked.elapsed() < LOOK_AGAIN {
            return latest.value.clone();
        }
        latest.looked = Instant::now();
        let digest = files.digest();
        if digest == latest.digest {
            return latest.value.clone();
        }
        latest.digest = digest;
        match files.load().map_err(BoxError::from).and_then(make) {
            Ok(value) => {
                tracing::info!("certificates or keys have changed; new connections use them");
                latest.value = value;
            }
            Err(err) => tracing::warn!(
                error = %Chain(&*err),
                "cannot use the certificates and keys that are in the files now; the last ones \
                 stay in use, and the files are read again when they change: put a pair that fits \
                 there"
            ),
        }
        latest.value.clone()
    }
}
