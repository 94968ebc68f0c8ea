//! A connection to a server.
//!
//! The library connects again by itself, and then sends what was handed to it before. So each
//! connection runs on a thread of its own, and never connects twice; it is cut by ending the
//! thread, after which nothing is sent any more that waits in the library.

use std::{
    collections::BTreeSet,
    future::{Future, ready},
    io,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    thread,
    time::Duration,
};

use async_nats::{Client, ConnectErrorKind, ConnectOptions, Event, Request, ServerError};
use rustls::ClientConfig;
use tokio::{
    runtime::{Builder, Handle},
    sync::{oneshot, watch},
    task::yield_now,
    time::timeout,
};

use super::{
    address::Server,
    login::{Login, LoginError},
};
use crate::sink::Again;

/// How long a connection may take until messages can be published.
const CONNECT_LIMIT: Duration = Duration::from_secs(10);
/// So long nothing may be answered while something is waited for.
pub(super) const ANSWER_LIMIT: Duration = Duration::from_secs(20);
/// How often the library asks whether an idle connection still works.
const PING_INTERVAL: Duration = Duration::from_secs(30);
/// Longer than any connection lives.
const NEVER: Duration = Duration::from_secs(100 * 365 * 24 * 3600);
/// After so many the thread has passed on all that came before.
const TURNS: usize = 3;
const NAME: &str = "nomad-firehose";

/// A connection that messages can be published on. Dropping it cuts it.
pub(super) struct Link {
    client: Client,
    server: String,
    thread: Handle,
    news: watch::Receiver<News>,
    /// Dropping what is in it ends the thread.
    running: Mutex<Option<oneshot::Sender<()>>>,
    retired: AtomicBool,
}

/// What the server has said beside its answers.
#[derive(Clone, Debug, Default)]
struct News {
    lost: Option<LinkError>,
    /// Subjects that we must not publish to, as the server writes them.
    denied: BTreeSet<String>,
    /// What it said last, which is why it ends the connection.
    said: Option<String>,
}

/// Why there is no connection, or no longer one.
#[derive(Clone, Debug, thiserror::Error)]
pub(super) enum LinkError {
    #[error("cannot connect to NATS at {server}")]
    Connect {
        server: String,
        #[source]
        source: Arc<async_nats::ConnectError>,
    },
    #[error("NATS at {server} did not let us in; check the login in SINK_NATS_URL or SINK_NATS_*")]
    Login {
        server: String,
        #[source]
        source: Arc<async_nats::ConnectError>,
    },
    #[error(transparent)]
    File(Arc<LoginError>),
    #[error("cannot connect to NATS at {0}: it did not let us in within {CONNECT_LIMIT:?}")]
    Slow(String),
    #[error("cannot start a thread for a connection to NATS")]
    Thread(#[source] Arc<io::Error>),
    #[error("the connection to NATS at {server} is lost{}", .said.as_ref().map(|it| format!(": {it}")).unwrap_or_default())]
    Lost { server: String, said: Option<String> },
    #[error(
        "NATS at {0} has answered nothing for {ANSWER_LIMIT:?}; if it is well, its streams may \
         have no leader, or not a stream but a subscriber has the subject"
    )]
    Silent(String),
    #[error(
        "NATS at {server} has answered nothing for {ANSWER_LIMIT:?}; the user must not publish to \
         the subject `{subject}`, and perhaps not to others: allow it, or check SINK_NATS_SUBJECT \
         and the login"
    )]
    Unheard { server: String, subject: String },
    #[error(
        "the user of NATS at {server} must be allowed to subscribe to _INBOX.>, and to publish to \
         it with SINK_NATS_MODE=core: {said}"
    )]
    Inbox { server: String, said: String },
    #[error("there is no connection to NATS; this is a defect in the sink")]
    Nowhere,
}

impl LinkError {
    /// When it makes sense to try again.
    pub(super) fn again(&self) -> Again {
        match self {
            Self::Login { .. } | Self::File(_) | Self::Inbox { .. } | Self::Unheard { .. } => {
                Again::Seldom
            }
            Self::Lost { said: Some(said), .. } if says_who(said) => Again::Seldom,
            _ => Again::Soon,
        }
    }
}

/// Whether what a server said is about who we are.
fn says_who(said: &str) -> bool {
    let said = said.to_lowercase();
    ["authorization", "authentication"].iter().any(|it| said.contains(it))
}

impl Link {
    /// Connects to a server, once.
    pub(super) async fn connect(
        server: &Server,
        login: &Login,
        tls: Option<Arc<ClientConfig>>,
    ) -> Result<Self, LinkError> {
        let shown = server.shown.clone();
        let (tell, news) = watch::channel(News::default());
        let (name, first) = (shown.clone(), AtomicU32::new(0));
        let options = ConnectOptions::new()
            .name(NAME)
            .ignore_discovered_servers()
            .connection_timeout(CONNECT_LIMIT)
            .request_timeout(None)
            .ping_interval(PING_INTERVAL)
            .reconnect_delay_callback(move |_| match first.fetch_add(1, Ordering::Relaxed) {
                0 => Duration::ZERO,
                _ => NEVER,
            })
            .event_callback(move |event| {
                tell.send_modify(|it| it.hear(&name, event));
                ready(())
            });
        let options = match tls {
            Some(tls) => options.tls_client_config(ClientConfig::clone(&tls)),
            None => options,
        };
        let options = login.apply(options, server.login.as_ref());
        let options = options.map_err(|err| LinkError::File(Arc::new(err)))?;
        let (running, cut) = oneshot::channel();
        let (made, making) = oneshot::channel();
        let at = server.at.clone();
        let connecting = async move { options.connect(at).await };
        let thread = thread::Builder::new().name("nats".into());
        thread
            .spawn(move || run(connecting, made, cut))
            .map_err(|err| LinkError::Thread(Arc::new(err)))?;
        let (client, thread) = match timeout(CONNECT_LIMIT, making).await {
            Ok(Ok(Ok(made))) => made,
            Ok(Ok(Err(NotMade::Thread(err)))) => return Err(LinkError::Thread(Arc::new(err))),
            Ok(Ok(Err(NotMade::Connection(err)))) => return Err(refused(shown, err)),
            Ok(Err(_)) => return Err(LinkError::Lost { server: shown, said: None }),
            Err(_) => return Err(LinkError::Slow(shown)),
        };
        let running = Mutex::new(Some(running));
        Ok(Self { client, server: shown, thread, news, running, retired: AtomicBool::new(false) })
    }

    pub(super) fn client(&self) -> &Client {
        &self.client
    }

    /// Whether more messages can be published.
    pub(super) fn is_usable(&self) -> bool {
        let lost = self.news.borrow().lost.is_some() || self.news.has_changed().is_err();
        let running = self.running.lock().unwrap_or_else(PoisonError::into_inner).is_some();
        !lost && running && !self.retired.load(Ordering::Relaxed)
    }

    /// Lets calls that are under way end, and no others begin: the library remembers for ever what
    /// it waits for, also where there will be no answer.
    pub(super) fn retire(&self) {
        self.retired.store(true, Ordering::Relaxed);
    }

    /// Ends the connection at once.
    pub(super) fn cut(&self) {
        drop(self.running.lock().unwrap_or_else(PoisonError::into_inner).take());
    }

    /// Nothing was answered for too long.
    pub(super) fn silent(&self) -> LinkError {
        self.news.borrow().silent(&self.server)
    }

    /// Resolves with what ends the wait for an answer that will not come: the connection is lost,
    /// or, as `Ok`, we must not publish to this subject.
    pub(super) async fn denied(&self, subject: &str) -> Result<(), LinkError> {
        let mut news = self.news.clone();
        loop {
            {
                let now = news.borrow_and_update();
                if let Some(lost) = &now.lost {
                    return Err(lost.clone());
                }
                if now.denies(subject) {
                    return Ok(());
                }
            }
            if news.changed().await.is_err() {
                return Err(self.lost());
            }
        }
    }

    /// Whether the server has said so far that we must not publish to this subject.
    pub(super) fn is_denied(&self, subject: &str) -> bool {
        self.news.borrow().denies(subject)
    }

    /// Waits until the server has read all that was sent before, and all that it said to that is
    /// known. A question that nobody answers is answered by the server itself, in its turn.
    pub(super) async fn round_trip(&self) -> Result<(), LinkError> {
        let inbox = self.client.new_inbox();
        let question = Request::new().timeout(None);
        tokio::select! {
            biased;
            _ = self.client.send_request(inbox.clone(), question) => {}
            denied = self.denied(&inbox) => {
                denied?;
                let (server, said) = (self.server.clone(), inbox);
                return Err(LinkError::Inbox { server, said: format!("`{said}` is denied") });
            }
        }
        // What was said before the answer waits in the same thread for its turn.
        let turns = self.thread.spawn(async {
            for _ in 0..TURNS {
                yield_now().await;
            }
        });
        turns.await.map_err(|_| self.lost())?;
        self.news.borrow().lost.clone().map_or(Ok(()), Err)
    }

    fn lost(&self) -> LinkError {
        let now = self.news.borrow();
        let lost = || LinkError::Lost { server: self.server.clone(), said: now.said.clone() };
        now.lost.clone().unwrap_or_else(lost)
    }
}

impl News {
    fn hear(&mut self, server: &str, event: Event) {
        let server = server.to_owned();
        match event {
            Event::ServerError(ServerError::Other(said)) => {
                if said.starts_with("Permissions Violation for Subscription") {
                    self.lost.get_or_insert(LinkError::Inbox { server, said });
                } else if said.starts_with("Permissions Violation for Publish") {
                    let quoted = said.split_once('"').and_then(|(_, it)| it.rsplit_once('"'));
                    self.denied.extend(quoted.map(|(subject, _)| subject.to_owned()));
                } else {
                    self.said = Some(said);
                }
            }
            Event::ServerError(err) => self.said = Some(err.to_string()),
            Event::Disconnected | Event::Closed => {
                let said = self.said.clone();
                self.lost.get_or_insert(LinkError::Lost { server, said });
            }
            _ => {}
        }
    }

    /// Why nothing was answered. Of many denials at once the library keeps the first ones only.
    fn silent(&self, server: &str) -> LinkError {
        let server = server.to_owned();
        match self.denied.first().cloned() {
            Some(subject) => LinkError::Unheard { server, subject },
            None => LinkError::Silent(server),
        }
    }

    fn denies(&self, subject: &str) -> bool {
        let as_written = || subject.replace('\\', "\\\\").replace('"', "\\\"");
        !self.denied.is_empty() && self.denied.contains(&as_written())
    }
}

/// Why there is no connection.
enum NotMade {
    Thread(io::Error),
    Connection(async_nats::ConnectError),
}

/// Connects, and runs the connection until it is cut.
fn run(
    connecting: impl Future<Output = Result<Client, async_nats::ConnectError>>,
    made: oneshot::Sender<Result<(Client, Handle), NotMade>>,
    mut cut: oneshot::Receiver<()>,
) {
    let runtime = match Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(err) => {
            let _ = made.send(Err(NotMade::Thread(err)));
            return;
        }
    };
    let handle = runtime.handle().clone();
    runtime.block_on(async {
        tokio::select! {
            client = connecting => {
                let client = client.map(|it| (it, handle)).map_err(NotMade::Connection);
                // Whoever no longer waits for it has dropped the other side of `cut` as well.
                let _ = made.send(client);
            }
            _ = &mut cut => return,
        }
        let _ = cut.await;
    });
    // A name that is being resolved is not waited for.
    runtime.shutdown_background();
}

fn refused(server: String, err: async_nats::ConnectError) -> LinkError {
    use ConnectErrorKind::{Authentication, AuthorizationViolation};
    let who = matches!(err.kind(), Authentication | AuthorizationViolation);
    let who = who || says_who(&err.to_string());
    let source = Arc::new(err);
    match who {
        true => LinkError::Login { server, source },
        false => LinkError::Connect { server, source },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_silence_in_which_something_was_denied_names_it() {
        let mut news = News::default();
        assert_eq!(news.silent("a:1").again(), Again::Soon);
        let said = "Permissions Violation for Publish to \"events.a\"".to_owned();
        news.hear("a:1", Event::ServerError(ServerError::Other(said)));
        let error = news.silent("a:1");
        assert_eq!(error.again(), Again::Seldom);
        assert!(error.to_string().contains("not publish to the subject `events.a`"), "{error}");
    }
}
