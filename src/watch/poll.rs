//! Blocking lists: wait for the list to change, read it as a stream, publish what is new.

use std::time::Duration;

use futures::StreamExt;
use tokio::{
    sync::mpsc,
    time::{Instant, sleep, timeout},
};

use super::{
    BATCH_BYTES, Batch, Lists, PASS_BYTES, Reading, Watcher,
    pass::Pass,
    split::{Element, SplitError, Splitter},
};
use crate::{
    api::{self, Page, Query},
    cursor::{Index, Kind, Listed, Mark, Move, Since},
    failpoint::{self, Point},
    streams::{BadElement, Mode, Resource},
};

/// At most one list in this time: the tables of jobs and nodes change with every allocation.
pub(super) const LEAST_INTERVAL: Duration = Duration::from_secs(1);
/// The longest that a server holds a query, and the shortest that it comes down to where something
/// in between cuts idle connections.
pub(super) const LONGEST_WAIT: Duration = Duration::from_secs(5 * 60);
pub(super) const SHORTEST_WAIT: Duration = Duration::from_secs(30);
/// For the first list, so that a server that does not answer is noticed soon.
const PROBING_WAIT: Duration = Duration::from_secs(10);
/// A body that stops arriving for so long is given up.
pub(super) const BODY_IDLE: Duration = Duration::from_secs(60);
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
    #[error("the list from Nomad cannot be read")]
    Split(#[from] SplitError),
    #[error("the list from Nomad stopped arriving for {} s", BODY_IDLE.as_secs())]
    Stalled,
    #[error(
        "Nomad answered with index 0 and no objects, which an agent does that shuts down or knows \
         no leader, and a server whose token may read nothing; what is known is kept"
    )]
    Nothing,
    #[error(
        "Nomad's index is lower than it was, and the server knows no leader that could say whether \
         Nomad was set back"
    )]
    NoLeader,
    #[error("the token may read no namespace; check its policies")]
    NoNamespace,
}

impl<R: Resource> Watcher<R> {
    /// Reads the list once and hands over what is new. Returns how to read it next.
    pub(super) async fn pass(
        &mut self,
        batches: &mpsc::Sender<Batch>,
    ) -> Result<Reading, PassError> {
        let mut pass = Pass::new(R::KIND, limit::<R>());
        self.seen.begin_allocations();
        let mut list: Option<Index> = None;
        let mut known_leader = true;
        self.follow.asked();
        let following = self.follow.stream.is_some();
        let first = self.seen.floor() == Index(0)
            && self.follow.stream.as_ref().is_some_and(|it| !it.joined);
        if following && !first && R::KIND == Kind::TaskEvents {
            pass.hold();
        }
        for query in self.queries().await? {
            self.note_passed();
            let nomad = self.nomad.clone();
            let list_of = failpoint::around(Point::ReadList, R::list(&nomad, &query));
            let page = match self.meanwhile(list_of, batches).await? {
                Ok(page) => page,
                Err(err) if err.is_forbidden() && self.lists == Lists::EachNamespace => {
                    self.report_closed(&query.namespace);
                    continue;
                }
                Err(err) if err.is_forbidden() && self.may_hide_namespaces() => {
                    self.find_namespaces().await?;
                    return match self.lists {
                        Lists::One => Err(err.into()),
                        Lists::EachNamespace => Ok(Reading::Again),
                    };
                }
                Err(err) => return Err(err.into()),
            };
            self.metrics.health.nomad.heard();
            if page.index == Index(0) && (!page.known_leader || self.seen.floor() > Index(0)) {
                return Err(PassError::Nothing);
            }
            if page.index < self.seen.floor() {
                return self.notice_lower_index(&page, batches).await;
            }
            if list.is_none() {
                self.probed.clone_from(&query.namespace);
            }
            self.metrics.nomad_index.set(page.index.0);
            list = Some(list.map_or(page.index, |it| it.min(page.index)));
            known_leader &= page.known_leader;
            if let Err(err) = self.read(page, &mut pass, batches).await {
                // What was read whole is published all the same; the floor stays where it is.
                if following {
                    self.judge_again(&mut pass);
                }
                self.publish(&mut pass, Index(0), None, batches).await?;
                return Err(err);
            }
        }
        let list = list.ok_or(PassError::NoNamespace)?;
        if pass.elements() == 0 && self.may_hide_namespaces() {
            self.find_namespaces().await?;
            if self.lists == Lists::EachNamespace {
                return Ok(Reading::Again);
            }
        }
        if pass.reverted() && self.reading != Reading::Regressed {
            return self.notice_reverted(list, known_leader, batches).await;
        }
        if following {
            self.release(&mut pass, list, first, batches).await?;
        }
        self.complete(pass, list, batches).await
    }

    /// The lists to read: one, or one for each namespace, once their table has changed.
    async fn queries(&mut self) -> Result<Vec<Query>, PassError> {
        let query = self.query();
        if self.lists == Lists::One {
            return Ok(vec![query]);
        }
        // The table's index, which the list of every namespace has, tells whether anything changed.
        let since = Instant::now();
        while self.follow.stream.is_none()
            && !self.once
            && matches!(self.reading, Reading::Waiting | Reading::Doubting)
            && since.elapsed() < query.wait
        {
            match R::list(&self.nomad, &probe(self.probed.clone())).await {
                Ok(page) if page.index == self.index => self.metrics.health.nomad.heard(),
                // It may be another namespace that can be read now.
                Err(err) if !err.is_forbidden() => return Err(err.into()),
                Ok(_) | Err(_) => break,
            }
            sleep(LEAST_INTERVAL).await;
        }
        let query = |namespace| Query { past: None, namespace, ..query.clone() };
        Ok(self.nomad.namespaces().await?.into_iter().map(query).collect())
    }

    pub(super) fn query(&self) -> Query {
        let (block, wait) = match self.reading {
            Reading::Probing => (true, PROBING_WAIT),
            Reading::Waiting => (true, self.wait),
            Reading::Doubting => (true, SHORTEST_WAIT),
            Reading::Again | Reading::Confirming | Reading::Regressed => (false, self.wait),
        };
        // Beside the stream a list is no wait for a change, and is to be the leader's: a server
        // that lags or is cut off sends a stream that looks well.
        let following = self.follow.stream.is_some();
        let stale = !matches!(self.reading, Reading::Confirming | Reading::Regressed);
        Query {
            // Nomad never blocks on index 0, which tables have that were never written.
            past: (block && !following && !self.once).then_some(self.index.max(Index(1))),
            wait: self.until_stream().map_or(wait, |it| it.min(wait)),
            stale: stale && !following && !self.once,
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
        if self.reading != Reading::Confirming {
            self.metrics.stale_lists.one();
            return Ok(Reading::Confirming);
        }
        if !page.known_leader {
            return Err(PassError::NoLeader);
        }
        self.start_over(page.index, batches).await
    }

    /// An object is older than it was, in a list that is not.
    async fn notice_reverted(
        &mut self,
        list: Index,
        known_leader: bool,
        batches: &mpsc::Sender<Batch>,
    ) -> Result<Reading, PassError> {
        match self.reading {
            Reading::Confirming if known_leader => self.start_over(list, batches).await,
            Reading::Confirming => Err(PassError::NoLeader),
            _ => Ok(Reading::Confirming),
        }
    }

    /// Nomad was set back to an older state. What differs from the last list is published by the
    /// next pass; until that is through, the position is at the beginning, so that a process that
    /// takes over in the middle of it loses nothing.
    async fn start_over(
        &mut self,
        list: Index,
        batches: &mpsc::Sender<Batch>,
    ) -> Result<Reading, PassError> {
        failpoint::reach(Point::Regress).await;
        self.metrics.index_regressions.one();
        tracing::warn!(
            stream = R::NAME,
            was = %self.seen.floor(),
            is = %list,
            "Nomad's index went back: its state was restored from a snapshot, or it is another \
             cluster. What differs from the last list is published again. If neither is meant, \
             check NOMAD_ADDR"
        );
        self.follow.last = None;
        self.bodies.clear();
        let then = Move::Lower(Index(0));
        self.seen.go(&then);
        send(batches, Batch { then: Some(then), ..Batch::default() }).await?;
        Ok(Reading::Regressed)
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
        self.seen.read_at(page.index);
        let mut splitter = Splitter::default();
        let mut body = page.body;
        let mut count = 0;
        loop {
            if self.follow.stream.is_some() && R::KIND == Kind::TaskEvents && pass.has_changes() {
                // What an event shows may be later than what was found so far.
                self.publish(pass, Index(0), None, batches).await?;
            }
            let chunk = self.meanwhile(timeout(BODY_IDLE, body.next()), batches).await?;
            let Some(chunk) = chunk.map_err(|_| PassError::Stalled)? else { break };
            let chunk = chunk.map_err(|err| self.nomad.body_failed(R::NAME, err))?;
            self.metrics.health.nomad.heard();
            let mut rest = &chunk[..];
            while let Some(element) = splitter.next_element(&mut rest)? {
                count += 1;
                match element {
                    Element::Whole(text) => match R::changes(text, &self.seen, mode) {
                        Ok(found) => {
                            if R::KIND == Kind::TaskEvents {
                                self.seen.list_allocation(found.object);
                            }
                            if !pass.held(&found, text) {
                                pass.add(found);
                            }
                        }
                        Err(bad) => pass.add_bad(bad),
                    },
                    Element::TooLarge(bytes) => pass.add_bad(BadElement {
                        object: format!("element {count} of the list"),
                        why: format!("it has {bytes} bytes"),
                    }),
                }
                if pass.holds_much() {
                    self.judge_held(pass);
                }
                if pass.is_full() {
                    self.publish(pass, Index(0), None, batches).await?;
                }
            }
        }
        splitter.finish()?;
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
        let bad = self.report_bad(&pass);
        // A server may answer a token that lost its rights with an empty list, and the index of
        // the table. An empty list needs no floor to move: whatever comes is above it.
        let empty = pass.elements() == 0;
        let first = self.seen.since() == Since::Now;
        let (reach, left) = (pass.reach(list), pass.has_left());
        let mut listed = std::mem::take(&mut pass.listed);
        self.report_empty(empty);
        // While something holds the floor, what is remembered above it would grow without end.
        let held = R::KIND == Kind::TaskEvents || self.reading == Reading::Doubting;
        let then = if first {
            // Whoever starts from now passes over what is there, readable or not.
            Some(Move::Reach(list))
        } else if bad || empty {
            None
        } else if held && !left {
            let listed = match R::KIND {
                Kind::TaskEvents => self.seen.listed_allocations(),
                Kind::Objects => Listed::Objects(listed.keys().map(|it| *it as u64).collect()),
            };
            Some(Move::ReachListed { floor: reach, list, listed })
        } else {
            Some(Move::Reach(reach))
        };
        if then.is_some() {
            failpoint::reach(Point::MoveFloor).await;
        }
        let skipped = self.publish(&mut pass, reach, then, batches).await?;
        for mark in &skipped {
            // What was not published has yet to differ from the last list.
            if let Mark::Object { key, .. } = mark {
                listed.remove(&u128::from(*key));
            }
        }
        // Where something is left this is not the end of a list yet.
        self.unread = if left { 0 } else { pass.bad().0 + skipped.len() };
        let skipped = !skipped.is_empty();
        let regressed = self.reading == Reading::Regressed;
        if R::KIND == Kind::Objects && !left && (!empty || regressed) {
            if regressed {
                self.seen.unlist();
            }
            self.seen.relist(list, listed.into_iter().map(|(key, index)| (key as u64, index)));
            self.bodies.retain(|key, _| self.seen.is_listed(*key));
        }
        self.index = list;
        self.wildcard_works |= !empty && self.lists == Lists::One;
        Ok(match self.reading {
            Reading::Regressed if left => Reading::Regressed,
            Reading::Regressed if R::KIND == Kind::Objects && (bad || skipped) => {
                sleep(SHORTEST_WAIT).await;
                Reading::Regressed
            }
            _ if left => Reading::Again,
            _ if bad || skipped => Reading::Doubting,
            _ => Reading::Waiting,
        })
    }
}

/// A query for a list that is nearly empty, at once and from any server: whether it can be read, and
/// the index of its table.
pub(super) fn probe(namespace: String) -> Query {
    let (wait, prefix) = (Duration::ZERO, Some(NO_ID.to_owned()));
    Query { past: None, wait, stale: true, namespace, prefix }
}

/// Task events are published as they are read; objects are sorted first.
fn limit<R: Resource>() -> usize {
    match R::KIND {
        Kind::TaskEvents => BATCH_BYTES,
        Kind::Objects => PASS_BYTES,
    }
}

/// Hands a batch over.
pub(super) async fn send(batches: &mpsc::Sender<Batch>, batch: Batch) -> Result<(), PassError> {
    failpoint::reach(Point::HandOver).await;
    batches.send(batch).await.map_err(|_| PassError::Closed)
}
