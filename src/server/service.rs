//! What a service manager gives and wants to know: listening sockets (sd_listen_fds(3)), the state
//! of the service (sd_notify(3)), and a successor for the running process (SIGUSR2).

use std::os::fd::{FromRawFd, OwnedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

use super::Start;
use crate::net::{Door, Inherited};
use crate::supervisor::StartError;

/// The first descriptor that systemd passes.
const FIRST: i32 = 3;

/// Listening sockets that were passed to this process.
pub(super) fn sockets() -> Result<Inherited, StartError> {
    let mut inherited = Inherited::default();
    let number = |name: &str| std::env::var(name).ok()?.parse::<u32>().ok();
    if number("LISTEN_PID") != Some(std::process::id()) {
        return Ok(inherited);
    }
    let names = std::env::var("LISTEN_FDNAMES").unwrap_or_default();
    let mut names = names.split(':');
    for at in 0..number("LISTEN_FDS").unwrap_or(0).min(1024).cast_signed() {
        let name = names.next().unwrap_or_default().to_owned();
        // SAFETY: LISTEN_PID says that these descriptors are for this process, which does not
        // use them elsewhere: this runs once, before anything is opened by number.
        let socket = unsafe { OwnedFd::from_raw_fd(FIRST + at) };
        inherited.add(name, socket).map_err(|e| {
            StartError::config(format!("socket {} of the service manager: {e}", at + 1))
        })?;
    }
    Ok(inherited)
}

/// What no door takes: of another process it is let go in time, of the service manager it is an
/// error, because its clients would wait for ever.
pub(super) fn unused(inherited: Inherited, start: Start) -> Result<Vec<Door>, StartError> {
    let rest = inherited.rest();
    match rest.len() {
        n if n > 0 && start == Start::Fresh => Err(StartError::config(format!(
            "{n} sockets of the service manager are of no address of network, api or monitoring"
        ))),
        _ => Ok(rest),
    }
}

/// Tells the service manager, if there is one. The process may not be the one that it started.
pub(super) fn notify(state: &str) {
    let Some(path) = std::env::var_os("NOTIFY_SOCKET") else { return };
    let message = format!("{state}\nMAINPID={}\n", std::process::id());
    let sent = UnixDatagram::unbound().and_then(|socket| {
        let name = path.as_encoded_bytes();
        let addr = match name.strip_prefix(b"@") {
            Some(name) => SocketAddr::from_abstract_name(name)?,
            None => SocketAddr::from_pathname(&path)?,
        };
        socket.send_to_addr(message.as_bytes(), &addr)
    });
    if let Err(error) = sent {
        tracing::warn!(%error, "the service manager cannot be told: {state}");
    }
}

/// Starts the program of this process again, with its arguments and `--takeover`: the file that is
/// at its path now.
pub(super) fn start_successor() {
    const OPTION: &str = "--takeover";
    let mut arguments = std::env::args_os();
    let Some(program) = arguments.next() else { return };
    let mut command = tokio::process::Command::new(&program);
    command.args(arguments.filter(|argument| argument != OPTION)).arg(OPTION);
    match command.spawn() {
        Ok(mut child) => {
            tracing::info!(pid = child.id(), "SIGUSR2: started a successor");
            tokio::spawn(async move {
                // The log of the child says why; here, that it is not there any more.
                if let Ok(status) = child.wait().await {
                    tracing::warn!(%status, "the successor has ended");
                }
            });
        }
        Err(error) => {
            let program = program.display();
            tracing::error!(%program, %error, "SIGUSR2: cannot start a successor");
        }
    }
}
