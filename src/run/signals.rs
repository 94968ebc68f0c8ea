//! What asks a process to stop.

use std::future::pending;

#[cfg(unix)]
use tokio::signal::unix::{Signal, SignalKind, signal};
#[cfg(windows)]
use tokio::signal::windows::{
    CtrlBreak, CtrlC, CtrlClose, CtrlShutdown, ctrl_break, ctrl_c, ctrl_close, ctrl_shutdown,
};

/// SIGTERM and SIGINT, or the events of a console. They are listened for all the time, so that none
/// is missed that comes right after another.
pub(super) struct Signals(Option<Streams>);

#[cfg(unix)]
type Streams = (Signal, Signal);
/// Windows ends the process a few seconds after one of the last two, whatever it does.
#[cfg(windows)]
type Streams = (CtrlC, CtrlBreak, CtrlClose, CtrlShutdown);

impl Signals {
    /// Listens from now on.
    #[cfg(unix)]
    pub(super) fn new() -> Self {
        let kinds = (SignalKind::terminate(), SignalKind::interrupt());
        Self(signal(kinds.0).and_then(|it| Ok((it, signal(kinds.1)?))).ok())
    }

    /// Listens from now on.
    #[cfg(windows)]
    pub(super) fn new() -> Self {
        let streams =
            || std::io::Result::Ok((ctrl_c()?, ctrl_break()?, ctrl_close()?, ctrl_shutdown()?));
        Self(streams().ok())
    }

    /// The next of them.
    #[cfg(unix)]
    pub(super) async fn next(&mut self) {
        let Some((terminate, interrupt)) = &mut self.0 else { return pending().await };
        tokio::select! {
            _ = terminate.recv() => (),
            _ = interrupt.recv() => (),
        }
    }

    /// The next of them.
    #[cfg(windows)]
    pub(super) async fn next(&mut self) {
        let Some((interrupt, pause, close, shutdown)) = &mut self.0 else { return pending().await };
        tokio::select! {
            _ = interrupt.recv() => (),
            _ = pause.recv() => (),
            _ = close.recv() => (),
            _ = shutdown.recv() => (),
        }
    }
}
