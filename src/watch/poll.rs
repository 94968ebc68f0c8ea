//! Blocking lists: wait for the list to change, read it as a stream, publish what is new.

use std::{collections::HashSet, time::Duration};

use futures::StreamExt;
use tokio::{
    sync::mpsc,
    time::{Instant, sleep, timeout},
};

use super::{
    BATCH_BYTES, Batch, Lists, Reading, Watcher,
    pass::Pass,
    split::{Element, SplitError, Splitter},
};
use crate::{
    api::{self, Page, Query},
    cursor::{Index, Kind, Move},
    streams::{BadElement, Mode, Resource},
};

/// At most one list in this time: the tables of jobs and nodes change with every allocation.
pub(super) const LEAST_INTERVAL: Duration = Duration::from_secs(1);
/// The longest that a server holds a query.
const WAIT: Duration = Duration::from_secs(5 * 60);
const SHORT_WAIT: Duration = Duration::from_secs(10);
/// After elements that could not be read, when the list is the same.
const DOUBTING_WAIT: Duration = Duration::from_secs(30);
/// A body that stops arriving for so long is given up.
const BODY_IDLE: Duration = Duration::from_secs(60);
/// An id that hardly any object begins with: such a list is empty, but has the table's index.
const NO_ID: &str = "ffffffff";

/// A list could not be read.
#[derive(Debug, thiserror::Error)]
pub(super) enum PassError {
    /// Nobody takes batches any more.
    #[error("nobody takes batches any more")]
    Closed,
    #[error(transparent)]
    Api(#[from] api::ApiError),
    #[error("the list from Nomad cannot be read; is NOMAD_ADDR the address of a Nomad agent?")]
    Split(#[from] SplitError),
    #[error("the list from Nomad stopped arriving for {} s", BODY_IDLE.as_secs())]
    Stalled,
    #[error(
        "Nomad answered with index 0 and no objects, which an agent does that shuts down or knows \
         no leader, and a server whose token may read nothing; what is known is kept"
    )]
    Nothing,
}

impl<R: Resource> Watcher<R> {
    /// Reads the list once and hands over what is new. Returns how to read it next.
    pub(super) async fn pass(
        &mut self,
        batches: &mpsc::Sender<Batch>,
    ) -> Result<Reading, PassError> {
        if self.lists == Lists::EachNamespace {
            return self.pass_each_namespace(batches).await;
        }
        let page = match R::list(&self.nomad, &self.query()).await {
            Ok(page) => page,
            Err(err) if err.is_forbidden() && self.is_old_wildcard_possible() => {
                // Nomad before 1.2.4 takes `*` for the name of a namespace, which few may read.
                self.find_namespaces().await?;
                return match self.lists {
                    Lists::One => Err(err.into()),
                    Lists::EachNamespace => Ok(Reading::Again),
                };
            }
            Err(err) => return Err(err.into()),
        };
        let list = page.index;
        if list == Index(0) && (!page.known_leader || self.seen.floor() > Index(0)) {
            return Err(PassError::Nothing);
        }
        if list < self.seen.floor() && self.reading != Reading::Regressed {
            return self.notice_lower_index(&page, batches).await;
        }
        let mut pass = Pass::new(R::KIND, BATCH_BYTES);
        let known_leader = page.known_leader;
        let read = self.read(page, &mut pass, batches).await;
        if let Err(err) = read {
            // What was read whole is published all the same; the floor stays where it is.
            self.publish(&mut pass, Index(0), None, batches).await?;
            return Err(err);
        }
        if pass.elements() == 0 && self.is_old_wildcard_possible() {
            self.find_namespaces().await?;
            if self.lists == Lists::EachNamespace {
                return Ok(Reading::Again);
            }
        }
        if let (Some(lowest), false) = (pass.reverted, self.reading == Reading::Regressed) {
            return self.notice_reverted(lowest.before().min(list), known_leader, batches).await;
        }
        self.complete(pass, list, batches).await
    }

    fn query(&self) -> Query {
        let (block, wait) = match self.reading {
            Reading::Probing => (true, SHORT_WAIT),
            Reading::Waiting => (true, WAIT),
            Reading::Doubting => (true, DOUBTING_WAIT),
            Reading::Again | Reading::Confirming | Reading::Regressed => (false, WAIT),
        };
        Query {
            // Nomad never blocks on index 0, which tables have that were never written.
            past: block.then_some(self.index.max(Index(1))),
            wait,
            stale: !matches!(self.reading, Reading::Confirming | Reading::Regressed),
            namespace: self.scope.namespace.to_string(),
            prefix: None,
        }
    }

    /// The list is older than what was read: is it the server that lags, or was Nomad set back?
    async fn notice_lower_index(
        &mut self,
        page: &Page,
        batches: &mpsc::Sender<Batch>,
    ) -> Result<Reading, PassError> {
        let floor = self.seen.floor();
        match self.reading {
            Reading::Confirming if page.known_leader => {
                self.lower(page.index, batches).await?;
                Ok(Reading::Regressed)
            }
            _ => {
                tracing::debug!(list = %page.index, %floor, "the list is older than what was read");
                self.metrics.stale_lists.one();
                Ok(Reading::Confirming)
            }
        }
    }

    /// An object is older than it was, in a list that is not.
    async fn notice_reverted(
        &mut self,
        to: Index,
        known_leader: bool,
        batches: &mpsc::Sender<Batch>,
    ) -> Result<Reading, PassError> {
        if self.reading == Reading::Confirming && known_leader {
            self.lower(to, batches).await?;
            return Ok(Reading::Regressed);
        }
        Ok(Reading::Confirming)
    }

    /// Nomad was set back to an older state.
    async fn lower(&mut self, to: Index, batches: &mpsc::Sender<Batch>) -> Result<(), PassError> {
        self.metrics.index_regressions.one();
        tracing::warn!(
            from = %self.seen.floor(),
            %to,
            "Nomad's index went back: its state was restored from a snapshot, or it is another \
             cluster. What differs from the last list is published again"
        );
        let then = Move::Lower(to);
        self.seen.go(&then);
        send(batches, Batch { then: Some(then), ..Batch::default() }).await
    }

    /// Reads the body of a list to its end.
    async fn read(
        &mut self,
        page: Page,
        pass: &mut Pass,
        batches: &mpsc::Sender<Batch>,
    ) -> Result<(), PassError> {
        let mode = match self.reading {
            Reading::Regressed => Mode::Regressed,
            _ => Mode::Usual,
        };
        let mut splitter = Splitter::default();
        let mut body = page.body;
        let mut count = 0;
        loop {
            let chunk = timeout(BODY_IDLE, body.next()).await.map_err(|_| PassError::Stalled)?;
            let Some(chunk) = chunk else { break };
            let chunk = chunk.map_err(|err| self.nomad.body_failed(R::NAME, err))?;
            let mut rest = &chunk[..];
            while let Some(element) = splitter.next(&mut rest, count)? {
                count += 1;
                let found = match element {
                    Element::Whole(text) => R::changes(text, &self.seen, mode),
                    Element::TooLarge(bytes) => Err(BadElement {
                        object: format!("element {count} of the list"),
                        why: format!("it has {bytes} bytes"),
                    }),
                };
                match found {
                    Ok(found) => {
                        for gap in &found.gaps {
                            self.report_gap(&gap.allocation, &gap.task);
                        }
                        pass.add(found);
                    }
                    Err(bad) => pass.add_bad(bad),
                }
                if pass.is_full() {
                    self.publish(pass, Index(0), None, batches).await?;
                }
            }
        }
        splitter.finish(count)?;
        self.metrics.lists_read.one();
        Ok(())
    }

    /// The list was read to its end: publish what is left of it, and move on.
    async fn complete(
        &mut self,
        mut pass: Pass,
        list: Index,
        batches: &mpsc::Sender<Batch>,
    ) -> Result<Reading, PassError> {
        let (bad, named) = pass.bad();
        if bad > 0 {
            self.metrics.bad_elements.add(bad);
            for bad in named {
                tracing::error!(
                    error = %bad,
                    "an element of Nomad's list cannot be read; it is tried again, and the \
                     checkpoint does not pass it. Look at the object with Nomad's own tools, and \
                     at what is between this process and Nomad"
                );
            }
        }
        let reach = pass.reach(list);
        let left = pass.left_some();
        let listed = std::mem::take(&mut pass.listed);
        let then = match R::KIND {
            _ if bad > 0 => None,
            Kind::TaskEvents => {
                Some(Move::ReachListed(reach, listed.keys().copied().collect::<HashSet<_>>()))
            }
            Kind::Objects => Some(Move::Reach(reach)),
        };
        let skipped = self.publish(&mut pass, reach, then, batches).await?;
        if R::KIND == Kind::Objects && !left {
            self.seen.relist(listed.into_iter().map(|(key, index)| (key as u64, index)));
        }
        self.index = list;
        Ok(match self.reading {
            Reading::Regressed if left => Reading::Regressed,
            _ if left => Reading::Again,
            _ if bad > 0 || skipped => Reading::Doubting,
            _ => Reading::Waiting,
        })
    }

    fn report_gap(&self, allocation: &str, task: &str) {
        self.metrics.gaps.one();
        tracing::warn!(
            allocation,
            task,
            "Nomad dropped events of a task before they could be read: it keeps ten of each. They \
             are lost; those it still has are published"
        );
    }

    fn is_old_wildcard_possible(&self) -> bool {
        R::OLD_WILDCARD && &*self.scope.namespace == "*" && self.lists == Lists::One
    }

    /// Whether `*` hides objects, as it does before Nomad 1.2.4. Asked before the floor moves over
    /// an empty list.
    async fn find_namespaces(&mut self) -> Result<(), PassError> {
        for namespace in self.nomad.namespaces().await? {
            let query = Query { past: None, namespace, ..self.query() };
            let page = match R::list(&self.nomad, &query).await {
                Err(err) if err.is_forbidden() => continue,
                page => page?,
            };
            if self.has_elements(page).await? {
                tracing::warn!(
                    stream = R::NAME,
                    "this Nomad does not know namespace `*` for this list (1.2.4 does); every \
                     namespace is watched on its own"
                );
                self.lists = Lists::EachNamespace;
                return Ok(());
            }
        }
        Ok(())
    }

    /// Whether a list has any element; the rest is not read.
    async fn has_elements(&self, page: Page) -> Result<bool, PassError> {
        let mut splitter = Splitter::default();
        let mut body = page.body;
        while let Some(chunk) =
            timeout(BODY_IDLE, body.next()).await.map_err(|_| PassError::Stalled)?
        {
            let chunk = chunk.map_err(|err| self.nomad.body_failed(R::NAME, err))?;
            if splitter.next(&mut &chunk[..], 0)?.is_some() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Reads the list of every namespace as if they were one. The table's index, which every one
    /// of them has, tells whether anything changed.
    async fn pass_each_namespace(
        &mut self,
        batches: &mpsc::Sender<Batch>,
    ) -> Result<Reading, PassError> {
        let since = Instant::now();
        let query = Query { past: None, ..self.query() };
        while self.reading == Reading::Waiting && since.elapsed() < WAIT {
            let namespace = "default".to_owned();
            let prefix = Some(NO_ID.to_owned());
            let probe = Query { namespace, prefix, ..query.clone() };
            if R::list(&self.nomad, &probe).await?.index != self.index {
                break;
            }
            sleep(LEAST_INTERVAL).await;
        }
        let mut pass = Pass::new(R::KIND, BATCH_BYTES);
        let mut list = None;
        for namespace in self.nomad.namespaces().await? {
            let page = R::list(&self.nomad, &Query { namespace, ..query.clone() }).await?;
            if page.index == Index(0) && (!page.known_leader || self.seen.floor() > Index(0)) {
                return Err(PassError::Nothing);
            }
            list = Some(list.map_or(page.index, |it: Index| it.min(page.index)));
            if let Err(err) = self.read(page, &mut pass, batches).await {
                self.publish(&mut pass, Index(0), None, batches).await?;
                return Err(err);
            }
        }
        let list = list.unwrap_or_default();
        if list < self.seen.floor() && self.reading != Reading::Regressed {
            return match self.reading {
                Reading::Confirming => {
                    self.lower(list, batches).await?;
                    Ok(Reading::Regressed)
                }
                _ => Ok(Reading::Confirming),
            };
        }
        self.complete(pass, list, batches).await
    }
}

/// Hands a batch over.
pub(super) async fn send(batches: &mpsc::Sender<Batch>, batch: Batch) -> Result<(), PassError> {
    batches.send(batch).await.map_err(|_| PassError::Closed)
}
