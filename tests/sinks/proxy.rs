//! What lies between a firehose and its receiver: a connection that can be cut, held up, or made
//! to lose the answers.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinHandle,
};

/// What becomes of what is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// It gets through.
    Open,
    /// It waits, both ways.
    Held,
    /// It gets through to the receiver, and no answer comes back.
    Deaf,
    /// There is nobody.
    Cut,
}

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
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let own = listener.local_addr().unwrap().port();
        let (way, watched) = watch::channel((Way::Open, 0));
        let accepted = Arc::new(AtomicUsize::default());
        let counted = accepted.clone();
        let task = tokio::spawn(async move {
            loop {
                let Ok((client, _)) = listener.accept().await else { continue };
                counted.fetch_add(1, Ordering::Relaxed);
                tokio::spawn(lead(client, port, watched.clone()));
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
            if way == Way::Cut || *old == Way::Deaf {
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

async fn lead(client: TcpStream, port: u16, mut way: watch::Receiver<(Way, u64)>) {
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
        () = pump(from_client, to_server, way.clone(), false) => (),
        () = pump(from_server, to_client, way, true) => (),
        _ = cut.wait_for(|(_, now)| *now != epoch) => (),
    }
}

/// Passes on what comes, as the way is at that moment, until either side ends.
async fn pump(
    mut from: impl AsyncReadExt + Unpin,
    mut to: impl AsyncWriteExt + Unpin,
    mut way: watch::Receiver<(Way, u64)>,
    answers: bool,
) {
    let mut buffer = vec![0; 16 << 10];
    loop {
        if way.wait_for(|(way, _)| *way != Way::Held).await.is_err() {
            return;
        }
        let read = tokio::select! {
            read = from.read(&mut buffer) => read,
            _ = way.wait_for(|(way, _)| *way == Way::Held) => continue,
        };
        let Ok(read @ 1..) = read else { return };
        if answers && way.borrow().0 == Way::Deaf {
            continue;
        }
        if to.write_all(&buffer[..read]).await.is_err() {
            return;
        }
    }
}
