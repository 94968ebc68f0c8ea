//! The event stream: what it shows is published as it comes, and lists stay the truth. The stream
//! has silent gaps, so only a list moves the floor.

use std::{future::Future, pin::Pin, time::Duration};

use tokio::{
    sync::mpsc,
    time::{Instant, sleep, sleep_until},
};

use super::{
    Batch, GREATEST_WAIT, LEAST_WAIT, Reading, Watcher,
    join::Missed,
    poll::{self, PassError},
    subscription::{Cut, Subscription, heard, is_1_0},
};
use crate::{
    api::Query,
    backoff::{Backoff, Trouble},
    cursor::{Index, Since},
    error::Chain,
    streams::{Resource, Topic},
};

/// A stream that is not offered is asked for again after this time.
const ASK_AGAIN: Duration = Duration::from_secs(60 * 60);
/// So many subscriptions in a row fail before lists are polled meanwhile.
const PATIENCE: u32 = 2;
/// How long namespaces are not looked at after that has failed.
const NAMESPACES_AGAIN: Duration = Duration::from_secs(60);

/// Where changes come from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Source {
    /// The event stream where the server offers it to the token, else lists.
    #[default]
    Auto,
    /// The event stream; where there is none, nothing is published.
    Events,
    /// Lists.
    Poll,
}

/// What is known of the event stream.
pub(super) struct Following {
    /// The subscription, while there is one.
    pub(super) stream: Option<Subscription>,
    /// The last index that this term has heard.
    pub(super) last: Option<Index>,
    /// What `last` was when the subscription began.
    pub(super) resumed: Option<Index>,
    /// What the subscription had shown when the list that is being read was asked for.
    pub(super) passed: Option<Index>,
    /// Changes that it has shown since the last list.
    pub(super) shown: usize,
    /// What only the last list has shown.
    pub(super) missed: Missed,
    /// When the last list was read.
    listed: Option<Instant>,
    /// When the next list is to be read.
    due: Instant,
    /// When one is to be read for something that the stream has shown since the last was asked for.
    pub(super) wanted: Option<Instant>,
    /// Why the subscription has ended, where it did so during something else.
    pub(super) cut: Option<Cut>,
    /// When the next subscription is to be tried.
    next: Instant,
    pub(super) trouble: Trouble,
    /// Whether the version of Nomad is known to be right.
    pub(super) version_known: bool,
    /// Which source the log has named.
    said: Option<Source>,
}

impl Default for Following {
    fn default() -> Self {
        let now = Instant::now();
        Self {
            stream: None,
            last: None,
            resumed: None,
            passed: None,
            shown: 0,
            missed: Missed::default(),
            listed: None,
            due: now,
            wanted: None,
            cut: None,
            next: now,
            trouble: Trouble::new(LEAST_WAIT, GREATEST_WAIT),
            version_known: false,
            said: None,
        }
    }
}

impl Following {
    /// The next list is to be read soon, but so long after the last one.
    pub(super) fn list_after(&mut self, pause: Duration) {
        let at = self.listed.map_or_else(Instant::now, |it| it + pause);
        self.wanted = Some(self.wanted.map_or(at, |it| it.min(at)));
    }

    /// When the next list is to be read.
    fn next_list(&self) -> Instant {
        self.wanted.map_or(self.due, |it| it.min(self.due))
    }
}

impl<R: Resource> Watcher<R> {
    /// Whether the event stream is to be tried now.
    pub(super) fn may_follow(&self) -> bool {
        self.scope.changes != Source::Poll
            && !self.needs_list()
            && self.follow.next <= Instant::now()
    }

    /// How long lists are to be polled, or nothing to be read, until the stream is tried again.
    pub(super) fn until_stream(&self) -> Option<Duration> {
        let until = self.follow.next.saturating_duration_since(Instant::now());
        (self.scope.changes != Source::Poll).then(|| until.max(poll::LEAST_INTERVAL))
    }

    /// Whether lists are polled while there is no stream.
    pub(super) fn polls_meanwhile(&self) -> bool {
        let lasting = self.follow.said == Some(Source::Poll)
            || self.follow.trouble.backoff.attempts() >= PATIENCE;
        match self.scope.changes {
            Source::Poll => true,
            Source::Auto => lasting || self.needs_list(),
            Source::Events => self.needs_list(),
        }
    }

    /// Whether only lists can tell how to go on: at a start from now, and until a regression of
    /// Nomad has been seen through.
    fn needs_list(&self) -> bool {
        self.seen.since() == Since::Now
            || matches!(self.reading, Reading::Again | Reading::Confirming | Reading::Regressed)
    }

    /// Subscribes, reads the list, and publishes what comes until the subscription is cut.
    pub(super) async fn follow(&mut self, batches: &mpsc::Sender<Batch>) -> Cut {
        let cut = match self.subscribe(batches).await {
            Ok(namespaces) => match self.follow_on(namespaces, batches).await {
                Ok(()) => Cut::SetBack,
                Err(cut) => cut,
            },
            Err(cut) => cut,
        };
        if let Some(stream) = self.follow.stream.take() {
            self.note_end(&stream);
        }
        self.follow.cut = None;
        cut
    }

    /// Says why there is no subscription, and when there is to be one.
    pub(super) fn note_cut(&mut self, cut: Cut) {
        let now = Instant::now();
        let Following { trouble, .. } = &mut self.follow;
        let reason = Chain(&cut).to_string();
        let unoffered = match &cut {
            // The next list goes on with it.
            Cut::Closed | Cut::SetBack => return,
            Cut::Namespaces => {
                self.follow.next = now;
                return;
            }
            Cut::Behind | Cut::Incomplete => {
                tracing::info!(stream = R::NAME, reason, "subscribing again to the event stream");
                self.follow.next = now + LEAST_WAIT;
                return;
            }
            Cut::Version1_0 => true,
            Cut::Mute => trouble.backoff.attempts() > PATIENCE,
            Cut::Refused(err) => err.is_no_stream(),
            Cut::Unreadable(_) | Cut::Ended | Cut::Said(_) | Cut::Broken(_) | Cut::Dead => false,
        };
        self.metrics.stream_errors.one();
        self.metrics.streaming.set(0);
        if unoffered && self.scope.changes == Source::Auto {
            self.follow.next = now + ASK_AGAIN;
            if self.follow.said.replace(Source::Poll) != Some(Source::Poll) {
                tracing::warn!(
                    stream = R::NAME,
                    reason,
                    "changes come from lists, which cost more: the event stream is not to be had. \
                     It is asked for again every hour"
                );
            }
            return;
        }
        if trouble.is_news(reason.clone()) {
            tracing::warn!(
                stream = R::NAME,
                reason,
                "the event stream is not there; it is tried again. What is missed meanwhile is \
                 found by the next list"
            );
        }
        if unoffered {
            trouble.backoff.slow_down(GREATEST_WAIT);
        }
        self.follow.next = now + trouble.backoff.next_wait();
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
        let query = Query {
            past: None,
            wait: Duration::ZERO,
            stale: true,
            namespace: namespace.to_string(),
            prefix: Some(poll::NO_ID.to_owned()),
        };
        R::list(&self.nomad, &query).await.map_err(Cut::Unreadable)?;
        let namespaces = self.other_namespaces().await;
        let from = self.follow.last.unwrap_or_else(|| self.seen.floor());
        let (stream, first) = Subscription::open(&self.nomad, R::TOPIC, &namespace, from).await?;
        self.follow.resumed = self.follow.last;
        self.follow.stream = Some(stream);
        self.metrics.subscriptions.one();
        self.metrics.streaming.set(1);
        if self.follow.said.replace(Source::Events) != Some(Source::Events) {
            tracing::info!(stream = R::NAME, "changes come from Nomad's event stream");
        }
        self.follow.due = Instant::now();
        self.take(Ok(first), batches).await.map_err(|_| Cut::Closed)?;
        Ok(namespaces)
    }

    /// Whether it is a Nomad whose stream has what the rest of its API has.
    async fn check_version(&mut self) -> Result<(), Cut> {
        if self.follow.version_known {
            return Ok(());
        }
        match is_1_0(&self.nomad).await? {
            Some(true) => self.refuse_version()?,
            Some(false) => (),
            // Its events tell.
            None => return Ok(()),
        }
        self.follow.version_known = true;
        Ok(())
    }

    /// Nomad 1.0 is followed only where that is demanded.
    pub(super) fn refuse_version(&mut self) -> Result<(), Cut> {
        if self.scope.changes == Source::Auto {
            return Err(Cut::Version1_0);
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

    /// Reads lists when they are due, and the stream all the time. `Ok` where only lists can tell
    /// how to go on.
    async fn follow_on(
        &mut self,
        mut namespaces: Pin<Box<dyn Future<Output = ()> + Send>>,
        batches: &mpsc::Sender<Batch>,
    ) -> Result<(), Cut> {
        let mut failed = Backoff::new(LEAST_WAIT, GREATEST_WAIT);
        loop {
            if self.follow.next_list() <= Instant::now() {
                let found = self.pass(batches).await;
                if let Err(PassError::Closed) = found {
                    return Err(Cut::Closed);
                }
                match found {
                    Ok(reading @ (Reading::Confirming | Reading::Regressed)) => {
                        self.reading = reading;
                        return Ok(());
                    }
                    Ok(reading) => self.noted_list(reading, &mut failed),
                    Err(err) => {
                        self.report_failed(&err);
                        self.follow.due = Instant::now() + failed.next_wait();
                    }
                }
            }
            if let Some(cut) = self.follow.cut.take() {
                return Err(cut);
            }
            let due = self.follow.next_list();
            tokio::select! {
                heard = heard(&mut self.follow.stream) => {
                    self.take(heard, batches).await.map_err(|_| Cut::Closed)?;
                }
                () = sleep_until(due) => (),
                () = &mut namespaces => return Err(Cut::Namespaces),
            }
        }
    }

    /// A list was read whole: when is the next one due?
    fn noted_list(&mut self, reading: Reading, failed: &mut Backoff) {
        let now = Instant::now();
        self.reading = reading;
        self.follow.listed = Some(now);
        self.follow.shown = 0;
        self.follow.due = match reading {
            Reading::Again => now,
            Reading::Doubting => now + poll::SHORTEST_WAIT.min(self.scope.resync),
            _ => now + self.scope.resync,
        };
        failed.reset();
        self.report_recovered();
        self.check_stream();
    }
}
