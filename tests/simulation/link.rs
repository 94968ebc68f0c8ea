//! The network of one copy: its way to a server, which can be cut, slow, or lose things.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{
    Router,
    body::Body,
    extract::{Request, State},
    http::{Method, StatusCode, Uri},
    response::{IntoResponse, Response},
};
use nomad_firehose::failpoint::Process;
use tokio::{
    sync::watch,
    time::{Instant, sleep},
};
use tower::ServiceExt;

/// What happens to one request on its way.
#[derive(Clone, Copy, Debug)]
pub enum Loss {
    /// It does not arrive.
    Request,
    /// It is carried out, and its answer does not arrive.
    Answer,
    /// It seems not to arrive, and is carried out so many seconds later.
    Late(u8),
}

/// A request that passes.
pub struct Passing<'a> {
    pub uri: &'a Uri,
    /// When it set out.
    pub sent: Instant,
}

/// What is looked at when a request passes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// It is about to be carried out.
    Before,
    /// It has been, well.
    Done,
    /// So it was, and its answer arrives at this instant.
    Answered,
}

type Watch = dyn Fn(When, &Passing<'_>) + Send + Sync;

/// A way to a server.
pub struct Link {
    server: Router,
    process: Arc<Process>,
    watch: Box<Watch>,
    cut: watch::Sender<bool>,
    resets: watch::Sender<()>,
    delay: Mutex<Duration>,
    losses: Mutex<VecDeque<(String, Loss)>>,
    impaired: Mutex<Option<Instant>>,
}

impl Link {
    pub fn new(
        server: Router,
        process: Arc<Process>,
        watch: impl Fn(When, &Passing<'_>) + Send + Sync + 'static,
    ) -> Arc<Self> {
        Arc::new(Self {
            server,
            process,
            watch: Box::new(watch),
            cut: watch::Sender::new(false),
            resets: watch::Sender::new(()),
            delay: Mutex::default(),
            losses: Mutex::default(),
            impaired: Mutex::default(),
        })
    }

    /// What a client is given.
    pub fn router(self: &Arc<Self>) -> Router {
        Router::new().fallback(handle).with_state(self.clone())
    }

    /// While cut, neither requests nor answers get through. They wait, as in a connection that
    /// repeats its packets.
    pub fn cut(&self, on: bool) {
        self.cut.send_replace(on);
        self.impair();
    }

    /// All requests under way break off, as at a restart of the server.
    pub fn reset(&self) {
        self.resets.send_replace(());
        self.impair();
    }

    /// Every request, and every answer, takes so long.
    pub fn delay(&self, delay: Duration) {
        *self.delay.lock().unwrap() = delay;
        self.impair();
    }

    /// This happens to the next request whose path, or method and path, begins so.
    pub fn lose(&self, prefix: &str, loss: Loss) {
        self.losses.lock().unwrap().push_back((prefix.to_owned(), loss));
        self.impair();
    }

    /// Everything is well from now on.
    pub fn heal(&self) {
        self.losses.lock().unwrap().clear();
        self.delay(Duration::ZERO);
        self.cut(false);
    }

    /// Until when something was wrong with it.
    pub fn impaired(&self) -> Option<Instant> {
        let now = *self.cut.borrow()
            || !self.delay.lock().unwrap().is_zero()
            || !self.losses.lock().unwrap().is_empty();
        if now { Some(Instant::now()) } else { *self.impaired.lock().unwrap() }
    }

    fn impair(&self) {
        *self.impaired.lock().unwrap() = Some(Instant::now());
    }

    fn loss(&self, method: &Method, uri: &Uri) -> Option<Loss> {
        let path = uri.path();
        let full = format!("{method} {path}");
        let mut losses = self.losses.lock().unwrap();
        let at =
            losses.iter().position(|(it, _)| path.starts_with(&**it) || full.starts_with(&**it))?;
        self.impair();
        losses.remove(at).map(|(_, loss)| loss)
    }

    /// Waits until something can get through.
    async fn through(&self) {
        self.process.running().await;
        let delay = *self.delay.lock().unwrap();
        if !delay.is_zero() {
            sleep(delay).await;
        }
        let _ = self.cut.subscribe().wait_for(|cut| !cut).await;
    }

    async fn carry_out(&self, request: Request, sent: Instant) -> Response {
        let uri = request.uri().clone();
        let passing = Passing { uri: &uri, sent };
        (self.watch)(When::Before, &passing);
        let Ok(response) = self.server.clone().oneshot(request).await;
        if response.status().is_success() {
            (self.watch)(When::Done, &passing);
        }
        response
    }
}

async fn handle(State(link): State<Arc<Link>>, request: Request) -> Response {
    let sent = Instant::now();
    let (method, uri) = (request.method().clone(), request.uri().clone());
    link.through().await;
    let loss = link.loss(&method, &uri);
    match loss {
        Some(Loss::Request) => return broken(),
        Some(Loss::Late(seconds)) => {
            let (parts, body) = request.into_parts();
            let body = axum::body::to_bytes(body, usize::MAX).await.unwrap();
            tokio::spawn(async move {
                sleep(Duration::from_secs(seconds.into())).await;
                link.carry_out(Request::from_parts(parts, Body::from(body)), sent).await;
            });
            return broken();
        }
        Some(Loss::Answer) | None => (),
    }
    let mut resets = link.resets.subscribe();
    let response = tokio::select! {
        biased;
        response = link.carry_out(request, sent) => response,
        _ = resets.changed() => return broken(),
    };
    link.through().await;
    if let Some(Loss::Answer) = loss {
        link.impair();
        return broken();
    }
    if response.status().is_success() {
        (link.watch)(When::Answered, &Passing { uri: &uri, sent });
    }
    response
}

/// What a client sees of a connection that breaks off.
fn broken() -> Response {
    (StatusCode::BAD_GATEWAY, "the connection broke off").into_response()
}
