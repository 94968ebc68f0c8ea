//! A stand-in over TCP.

use std::{future::Future, io, net::Ipv4Addr, pin::pin};

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::{rt::TokioIo, service::TowerToHyperService};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinSet,
};

/// A free port on loopback.
pub async fn bind() -> io::Result<TcpListener> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await
}

/// Serves until `stop`, then lets the requests under way end; dropping the future cuts every connection instead.
pub async fn serve(
    router: Router,
    listener: TcpListener,
    stop: impl Future<Output = ()>,
) -> io::Result<()> {
    let (stopping, stopped) = watch::channel(());
    // A set of tasks and not detached ones: it ends them when this future is dropped.
    let mut connections = JoinSet::new();
    let mut stop = pin!(stop);
    loop {
        tokio::select! {
            () = &mut stop => break,
            accepted = listener.accept() => {
                let (stream, _) = accepted?;
                stream.set_nodelay(true)?;
                connections.spawn(connection(router.clone(), stream, stopped.clone()));
            }
            Some(_) = connections.join_next() => {}
        }
    }
    drop(listener);
    stopping.send_replace(());
    while connections.join_next().await.is_some() {}
    Ok(())
}

/// One connection, until the client leaves or the server stops. What fails here is the client's to notice.
async fn connection(router: Router, stream: TcpStream, mut stopped: watch::Receiver<()>) {
    let mut server = http1::Builder::new();
    // Go sends `X-Nomad-Index`, not `x-nomad-index`.
    server.title_case_headers(true);
    let mut connection =
        pin!(server.serve_connection(TokioIo::new(stream), TowerToHyperService::new(router)));
    tokio::select! {
        _ = &mut connection => {}
        _ = stopped.changed() => {
            connection.as_mut().graceful_shutdown();
            let _ = connection.await;
        }
    }
}
