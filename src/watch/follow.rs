//! The event stream: what it shows is published as it comes, and lists stay the truth. The stream
//! has silent gaps, so only a list moves the floor.

use std::{future::Future, pin::Pin, time::Duration};

use tokio::{
    sync::mpsc,
    time::{Instant, sleep, sleep_until},
};

use super::{
    Batch, GREATEST_WAIT, LEAST_WAIT, Reading, Watcher,
    following::Source,
    poll::{self, PassError},
    subscription::{Cut, Fitness, OF_1_0, Subscription, fitness, heard},
};
use crate::{
    backoff::Backoff,
    cursor::{Index, Since},
    error::Chain,
    streams::{Resource, Topic},
};

/// A stream that is not offered is asked for again after this time.
const ASK_AGAIN: Duration = Duration::from_secs(60 * 60);
/// So many subscriptions in a row fail before lists are polled meanwhile.
const PATIENCE: u32 = 2;
/// So many subscriptions in a row show nothing of what lists have before the stream is given up.
const MOST_BARREN: u32 = 3;
/// How long namespaces are not looked at after that has failed.
const NAMESPACES_AGAIN: Duration = Duration::from_secs(60);

impl<R: Resource> Watcher<R> {
    /// Whether the event stream is to be tried now.
    pub(super) fn may_follow(&self) -> bool {
        self.scope.changes != Source::Poll
            && !self.needs_list()
            && (self.follow.next <= Instant::now() || self.has_other_token())
    }

    /// What was denied to one token may be granted to the next.
    fn has_other_token(&self) -> bool {
        self.follow.token != self.nomad.token_changes()
    }

    /// How long lists are to be polled, or nothing to be read, until the stream is tried again.
    pub(super) fn until_stream(&self) -> Option<Duration> {
        let until = self.follow.next.saturating_duration_since(Instant::now());
        (self.scope.changes != Source::Poll).then(|| until.max(poll::LEAST_INTERVAL))
    }

    /// Whether lists are polled while there is no stream.
    pub(super) fn polls_meanwhile(&self) -> bool {
        // Who has never had a stream is not to wait for one.
        let patience = if self.follow.said.is_some() { PATIENCE } else { 1 };
        let lasting = self.follow.said == Some(Source::Poll)
            || self.follow.trouble.backoff.attempts() >= patience;
        match self.scope.changes {
            Source::Poll => true,
            Source::Auto => lasting || self.needs_list(),
            Source::Events => self.needs_list(),
        }
    }

    /// Whether only lists can tell how to go on: at a start from now or from a time, of which old
    /// states in the stream know nothing, and until a regression of Nomad has been seen through.
    fn needs_list(&self) -> bool {
        self.seen.since() != Since::Floor
            || matches!(self.reading, Reading::Again | Reading::Confirming | Reading::Regressed)
    }

    /// Subscribes, reads the list, and publishes what comes until the subscription is cut.
    pub(super) async fn follow(&mut self, batches: &mpsc::Sender<Batch>) -> Cut {
        let cut = match self.subscribe(batches).await {
            Ok(namespaces) => self.follow_on(namespaces, batches).await,
            Err(cut) => cut,
        };
        self.leave();
        self.follow.cut = None;
        cut
    }

    /// Says why there is no subscription, and when there is to be one.
    pub(super) fn note_cut(&mut self, cut: Cut) {
        let now = Instant::now();
        let error = Chain(&cut).to_string();
        if self.has_other_token() {
            self.follow.token = self.nomad.token_changes();
            self.follow.denied = 0;
        }
        let unoffered = match &cut {
            // The next list goes on with it.
            Cut::Closed | Cut::SetBack => return,
            Cut::Namespaces => {
                self.follow.next = now;
                return;
            }
            Cut::Behind | Cut::Incomplete if self.follow.barren < MOST_BARREN => {
                tracing::info!(stream = R::NAME, error, "subscribing again to the event stream");
                self.follow.next = now + LEAST_WAIT;
                return;
            }
            Cut::Version(_) | Cut::Behind | Cut::Incomplete => true,
            Cut::Mute => self.is_denied_again(),
            Cut::Refused(err) => err.is_no_stream() && self.is_denied_again(),
            Cut::Unreadable(_) | Cut::Ended | Cut::Said(_) | Cut::Broken(_) | Cut::Dead => false,
        };
        self.metrics.stream_errors.one();
        if unoffered && self.scope.changes == Source::Auto {
            self.follow.next = now + ASK_AGAIN;
            if self.follow.said.replace(Source::Poll) != Some(Source::Poll) {
                tracing::warn!(
                    stream = R::NAME,
                    error,
                    "changes come from lists, which cost more: the event stream is not to be had. \
                     It is asked for again every hour; the error says what it needs"
                );
            }
            return;
        }
        if self.scope.changes == Source::Events {
            // Elsewhere lists are read meanwhile, and tell whether Nomad is there.
            self.metrics.health.nomad.fails(&error);
        }
        let trouble = &mut self.follow.trouble;
        if trouble.is_news(error.clone()) {
            tracing::warn!(
                stream = R::NAME,
                error,
                "the event stream is not there; it is tried again. What is missed meanwhile is \
                 found by the next list. If it recurs, mend what the error says"
            );
        }
        if matches!(cut, Cut::Refused(_) | Cut::Version(_)) {
            trouble.backoff.slow_down(GREATEST_WAIT);
        }
        self.follow.next = now + trouble.backoff.next_wait();
    }

    /// A denial that stands alone may be of a token that is being changed, or of a proxy.
    fn is_denied_again(&mut self) -> bool {
        self.follow.denied += 1;
        self.follow.denied > 1
    }

    /// Begins a subscription: the token is tried with a list that is nearly empty, since a newer
    /// Nomad answers a stream that it denies with silence. Returns what ends when there are other
    /// namespaces.
    async fn subscribe(
        &mut self,
        batches: &mpsc::Sender<Batch>,
    ) -> Result<Pin<Box<dyn Future<Output = ()> + Send>>, Cut> {
        let namespace = self.scope.namespace.clone();
        self.check_version().await?;
        match R::list(&self.nomad, &poll::probe(namespace.to_string())).await {
            // Before 1.2.4 some lists take `*` for a name, and deny it.
            Err(err) if !(err.is_forbidden() && self.may_have_namespaces_apart()) => {
                return Err(Cut::Unreadable(err));
            }
            Ok(_) | Err(_) => (),
        }
        let namespaces = self.other_namespaces().await;
        let from = self.follow.last.unwrap_or_else(|| self.seen.floor());
        let metrics = self.metrics.clone();
        let (stream, first) =
            Subscription::open(&self.nomad, R::TOPIC, &namespace, from, metrics).await?;
        self.follow.resumed = self.follow.last;
        self.follow.stream = Some(stream);
        if self.follow.said.replace(Source::Events) != Some(Source::Events) {
            tracing::info!(stream = R::NAME, "changes come from Nomad's event stream");
        }
        self.follow.began();
        self.take(Ok(first), batches).await.map_err(|_| Cut::Closed)?;
        Ok(namespaces)
    }

    /// Whether it is a Nomad whose stream has what the rest of its API has.
    async fn check_version(&mut self) -> Result<(), Cut> {
        if self.follow.version_known {
            return Ok(());
        }
        match fitness(&self.nomad, R::TOPIC, &self.scope.namespace).await? {
            Fitness::Fit => (),
            Fitness::Unfit(Cut::Version(OF_1_0)) => self.refuse_version()?,
            Fitness::Unfit(cut) => return Err(cut),
            // Its events tell.
            Fitness::Unknown => return Ok(()),
        }
        self.follow.version_known = true;
        Ok(())
    }

    /// Nomad 1.0 is followed only where that is demanded.
    pub(super) fn refuse_version(&mut self) -> Result<(), Cut> {
        if self.scope.changes == Source::Auto {
            return Err(Cut::Version(OF_1_0));
        }
        tracing::warn!(
            stream = R::NAME,
            "this is Nomad 1.0, whose event stream writes empty members and times out where its \
             lists leave them out; set NOMAD_FIREHOSE_SOURCE=poll to have them as in the lists"
        );
        Ok(())
    }

    /// What is over once there are other namespaces than now: a subscription to all of them covers
    /// those that existed when it began.
    async fn other_namespaces(&self) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        // Nodes have no namespace.
        if &*self.scope.namespace != "*" || R::TOPIC == Topic::Carries("Node") {
            return Box::pin(std::future::pending());
        }
        let nomad = self.nomad.clone();
        let first = nomad.namespaces_past(None, Duration::ZERO).await;
        Box::pin(async move {
            let mut known = first.ok();
            loop {
                let past = known.as_ref().map(|(index, _)| (*index).max(Index(1)));
                match (nomad.namespaces_past(past, poll::LONGEST_WAIT).await, &mut known) {
                    (Ok((_, now)), Some((_, then))) if now != *then => return,
                    (Ok((index, _)), Some((last, _))) => *last = index,
                    (Ok(answer), None) => known = Some(answer),
                    // The token may not list them, or Nomad is away, which shows elsewhere.
                    (Err(_), _) => sleep(NAMESPACES_AGAIN).await,
                }
                // An index that does not move would make this a loop without a wait.
                sleep(poll::LEAST_INTERVAL).await;
            }
        })
    }

    /// Reads lists when they are due, and the stream all the time.
    async fn follow_on(
        &mut self,
        mut namespaces: Pin<Box<dyn Future<Output = ()> + Send>>,
        batches: &mpsc::Sender<Batch>,
    ) -> Cut {
        let mut failed = Backoff::new(LEAST_WAIT, GREATEST_WAIT);
        loop {
            if self.follow.next_list() <= Instant::now() {
                match self.pass(batches).await {
                    Ok(reading @ (Reading::Confirming | Reading::Regressed)) => {
                        self.reading = reading;
                        return Cut::SetBack;
                    }
                    Ok(reading) => self.noted_list(reading, &mut failed),
                    Err(PassError::Closed) => return Cut::Closed,
                    Err(err) => {
                        self.report_failed(&err);
                        self.follow.failed(failed.next_wait());
                    }
                }
            }
            if let Some(cut) = self.follow.cut.take() {
                return cut;
            }
            let due = self.follow.next_list();
            let has_room = self.follow.has_room();
            tokio::select! {
                heard = heard(&mut self.follow.stream), if has_room => {
                    if self.take(heard, batches).await.is_err() {
                        return Cut::Closed;
                    }
                }
                () = sleep_until(due) => (),
                () = &mut namespaces => return Cut::Namespaces,
            }
        }
    }

    /// A list was read whole: when is the next one due?
    fn noted_list(&mut self, reading: Reading, failed: &mut Backoff) {
        self.reading = reading;
        let next = match reading {
            Reading::Again => Duration::ZERO,
            Reading::Doubting => poll::SHORTEST_WAIT.min(self.scope.resync),
            _ => self.scope.resync,
        };
        self.follow.listed(self.index, next);
        failed.reset();
        self.report_recovered();
        self.check_stream();
    }
}
