//! What lies between a firehose and a server: a connection that can be cut, held up, slowed down,
//! closed on one side, or made to lose the answers; and, where that is asked for, what passes.

#![allow(dead_code, reason = "each of the two test binaries uses some of it")]

use std::{
    future::pending,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::{mpsc, watch},
    task::JoinHandle,
    time::{Instant, sleep_until},
};

/// What each piece takes longer that passes a slow proxy.
pub const SLOW: Duration = Duration::from_millis(400);
/// Pieces between reading and writing where somebody hears what passes: it is heard when it was
/// sent, whatever the other side is busy with.
const AHEAD: usize = 100_000;

/// What becomes of what is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Way {
    /// It gets through.
    Open,
    /// It waits, both ways.
    Held,
    /// It gets through, a while later.
    Slow,
    /// It gets through to the receiver, and no answer comes back.
    Deaf,
    /// The receiver has closed its side, and listens on.
    HalfClosed,
    /// There is nobody.
    Cut,
}

/// Hears what passes on one connection: what is asked as it is sent, and what is answered shortly
/// before it gets there.
pub trait Ear: Send {
    fn asked(&mut self, bytes: &[u8]);
    fn answered(&mut self, bytes: &[u8]);
}

type Ears = Arc<dyn Fn() -> Box<dyn Ear> + Send + Sync>;
type Heard = Option<Arc<Mutex<Box<dyn Ear>>>>;

/// A port that leads to another.
pub struct Proxy {
    port: u16,
    way: watch::Sender<(Way, u64)>,
    accepted: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

impl Proxy {
    /// Leads to a port of this machine.
    pub async fn to(port: u16) -> Self {
        Self::with(port, None).await
    }

    /// The same, with somebody who hears what passes on each connection.
    pub async fn heard<E: Ear + 'static>(
        port: u16,
        ear: impl Fn() -> E + Send + Sync + 'static,
    ) -> Self {
        Self::with(port, Some(Arc::new(move || Box::new(ear())))).await
    }

    async fn with(port: u16, ears: Option<Ears>) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let own = listener.local_addr().unwrap().port();
        let (way, watched) = watch::channel((Way::Open, 0));
        let accepted = Arc::new(AtomicUsize::default());
        let counted = accepted.clone();
        let task = tokio::spawn(async move {
            loop {
                let Ok((client, _)) = listener.accept().await else { continue };
                counted.fetch_add(1, Ordering::Relaxed);
                let ear = ears.as_ref().map(|ears| Arc::new(Mutex::new(ears())));
                tokio::spawn(lead(client, port, watched.clone(), ear));
            }
        });
        Self { port: own, way, accepted, task }
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// How many connections there have been.
    pub fn accepted(&self) -> usize {
        self.accepted.load(Ordering::Relaxed)
    }

    /// From now on. What is connected is cut, unless it is only held up or let go again.
    pub fn set(&self, way: Way) {
        self.way.send_modify(|(old, epoch)| {
            if way == Way::Cut || matches!(old, Way::Deaf | Way::HalfClosed) {
                *epoch += 1;
            }
            *old = way;
        });
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
        self.set(Way::Cut);
    }
}

async fn lead(client: TcpStream, port: u16, mut way: watch::Receiver<(Way, u64)>, ear: Heard) {
    let epoch = {
        let (way, epoch) = *way.borrow_and_update();
        if way == Way::Cut {
            return;
        }
        epoch
    };
    let Ok(server) = TcpStream::connect(SocketAddr::from(([127, 0, 0, 1], port))).await else {
        return;
    };
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    let mut cut = way.clone();
    tokio::select! {
        () = pump(from_client, to_server, way.clone(), ear.clone(), false) => (),
        () = pump(from_server, to_client, way, ear, true) => (),
        _ = cut.wait_for(|(_, now)| *now != epoch) => (),
    }
}

/// Passes on what comes until either side ends, and then what has come before.
async fn pump(
    from: impl AsyncReadExt + Unpin,
    to: impl AsyncWriteExt + Unpin,
    way: watch::Receiver<(Way, u64)>,
    ear: Heard,
    answers: bool,
) {
    let (pieces, come) = mpsc::channel(if ear.is_some() { AHEAD } else { 1 });
    let asking = ear.clone().filter(|_| !answers);
    let answering = ear.clone().filter(|_| answers);
    let writing = write(to, come, way.clone(), answering, answers);
    tokio::pin!(writing);
    tokio::select! {
        () = read(from, pieces, way, asking, ear.is_some()) => writing.await,
        () = &mut writing => (),
    }
}

async fn read(
    mut from: impl AsyncReadExt + Unpin,
    pieces: mpsc::Sender<(Instant, Vec<u8>)>,
    mut way: watch::Receiver<(Way, u64)>,
    ear: Heard,
    heard: bool,
) {
    let mut buffer = vec![0; 16 << 10];
    loop {
        if !heard && way.wait_for(|(way, _)| *way != Way::Held).await.is_err() {
            return;
        }
        let read = tokio::select! {
            read = from.read(&mut buffer) => read,
            _ = way.wait_for(|(way, _)| *way == Way::Held), if !heard => continue,
        };
        let Ok(read @ 1..) = read else { return };
        if let Some(ear) = &ear {
            ear.lock().unwrap().asked(&buffer[..read]);
        }
        if pieces.send((Instant::now(), buffer[..read].to_vec())).await.is_err() {
            return;
        }
    }
}

/// Writes what was read, as the way is at that moment.
async fn write(
    mut to: impl AsyncWriteExt + Unpin,
    mut come: mpsc::Receiver<(Instant, Vec<u8>)>,
    mut way: watch::Receiver<(Way, u64)>,
    ear: Heard,
    answers: bool,
) {
    let (_, epoch) = *way.borrow();
    loop {
        let piece = tokio::select! {
            piece = come.recv() => Some(piece),
            _ = way.wait_for(|(way, _)| answers && *way == Way::HalfClosed) => None,
        };
        let Some(piece) = piece else {
            let _ = to.shutdown().await;
            return pending().await;
        };
        let Some((at, bytes)) = piece else { return };
        if way.wait_for(|(way, _)| *way != Way::Held).await.is_err() {
            return;
        }
        let (now, current) = *way.borrow();
        // Whoever cuts this connection may not have got to it yet.
        if current != epoch {
            return;
        }
        match now {
            Way::Deaf | Way::HalfClosed if answers => continue,
            Way::Slow => sleep_until(at + SLOW).await,
            Way::Open | Way::Held | Way::Deaf | Way::HalfClosed | Way::Cut => (),
        }
        if let Some(ear) = &ear {
            ear.lock().unwrap().answered(&bytes);
        }
        if to.write_all(&bytes).await.is_err() {
            return;
        }
    }
}
