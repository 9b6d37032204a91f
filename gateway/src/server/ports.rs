//! Ports: bound on all addresses or on none, and whose they are when they are taken.

use socket2::{Domain, Protocol, Socket, Type};
use std::fmt;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use tokio::net::TcpListener;

/// Connections that wait for the kernel's hand-over.
const BACKLOG: i32 = 1024;
/// Ports above a taken one that are tried for a free one.
const MAX_TRIED: u16 = 50;

/// The program that listens on a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortHolder {
    /// Its name.
    pub program: String,
    /// Its process.
    pub process: u32,
}

impl fmt::Display for PortHolder {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} (process {})", self.program, self.process)
    }
}

/// A port that another program holds, on one of the addresses at least.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortTaken {
    /// The address that could not be had.
    pub address: SocketAddr,
    /// Who holds it, where the system tells.
    pub holder: Option<PortHolder>,
    /// The next port that is free on all addresses.
    pub next_free: Option<u16>,
}

impl PortTaken {
    /// Looks at who holds the port of `address`, and for another one for all of `wanted`. Blocks for
    /// milliseconds.
    pub(crate) fn look(address: SocketAddr, wanted: &[SocketAddr]) -> Self {
        Self {
            address,
            holder: holder_of(address.port()),
            next_free: next_free(address.port(), wanted),
        }
    }
}

impl fmt::Display for PortTaken {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let port = self.address.port();
        match &self.holder {
            Some(holder) => write!(formatter, "port {port} is used by {holder}")?,
            None => write!(formatter, "port {port} is used by another program")?,
        }
        match self.next_free {
            Some(free) => write!(formatter, "; port {free} is free"),
            None => Ok(()),
        }
    }
}

/// Why an address cannot be listened on.
#[derive(Debug)]
pub(crate) enum BindFault {
    Taken(SocketAddr),
    Other(SocketAddr, io::Error),
}

/// Binds all or none; with port 0 the first address picks a port and the others follow it. A machine
/// without IPv6 is served over IPv4 alone. `has_others`: some are bound already.
pub(crate) fn bind_all(
    addresses: &[SocketAddr],
    has_others: bool,
) -> Result<Vec<TcpListener>, BindFault> {
    let mut listeners: Vec<TcpListener> = Vec::new();
    for address in addresses {
        let mut address = *address;
        if let Some(first) = listeners
            .first()
            .and_then(|listener| listener.local_addr().ok())
            && address.port() == 0
        {
            address.set_port(first.port());
        }
        match listen(address) {
            Ok(listener) => listeners.push(listener),
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                return Err(BindFault::Taken(address));
            }
            Err(error) if address.is_ipv6() && (has_others || !listeners.is_empty()) => {
                tracing::debug!(%address, %error, "not listening on this address");
            }
            Err(error) => return Err(BindFault::Other(address, error)),
        }
    }
    Ok(listeners)
}

/// Whether somebody else answers at these addresses though they can be bound: at the other address
/// family's loopback, where `localhost` leads as well, or, on systems that let a program bind one
/// address of a port that another holds on all, at the very same one.
pub(crate) fn is_held_beside(wanted: &[SocketAddr]) -> Option<PortTaken> {
    let first = wanted.first().filter(|first| first.port() != 0)?;
    let reaches_loopback = |address: &&SocketAddr| {
        address.port() == first.port()
            && (address.ip().is_loopback() || address.ip().is_unspecified())
    };
    wanted.iter().find(reaches_loopback)?;
    let loopbacks = [
        SocketAddr::from((Ipv4Addr::LOCALHOST, first.port())),
        SocketAddr::from((Ipv6Addr::LOCALHOST, first.port())),
    ];
    let is_wanted = |loopback: &SocketAddr| {
        wanted
            .iter()
            .any(|address| address.is_ipv4() == loopback.is_ipv4())
    };
    loopbacks
        .into_iter()
        .find(|loopback| {
            if cfg!(target_os = "linux") && is_wanted(loopback) {
                // Linux refuses to bind it a second time, so the binding itself will tell.
                return false;
            }
            is_taken(*loopback)
        })
        .map(|loopback| PortTaken::look(loopback, wanted))
}

/// Whether binding the address fails because somebody has it, or, where that proves nothing, whether
/// somebody answers there.
fn is_taken(address: SocketAddr) -> bool {
    const ANSWER_TIMEOUT: std::time::Duration = std::time::Duration::from_millis(200);
    if bind(address).is_err_and(|error| error.kind() == io::ErrorKind::AddrInUse) {
        return true;
    }
    !cfg!(target_os = "linux")
        && std::net::TcpStream::connect_timeout(&address, ANSWER_TIMEOUT).is_ok()
}

fn bind(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    #[cfg(unix)]
    socket.set_reuse_address(true)?;
    #[cfg(windows)]
    claim_port(&socket)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    Ok(socket)
}

/// Keeps other programs of this account from taking the port over, as `SO_REUSEADDR` would let them.
#[cfg(windows)]
fn claim_port(socket: &Socket) -> io::Result<()> {
    use std::os::windows::io::AsRawSocket as _;
    use windows::Win32::Networking::WinSock::{SO_REUSEADDR, SOCKET, SOL_SOCKET, setsockopt};
    /// As the system's header defines it.
    const SO_EXCLUSIVEADDRUSE: i32 = !SO_REUSEADDR;
    let handle = usize::try_from(socket.as_raw_socket()).map_err(io::Error::other)?;
    #[expect(unsafe_code, reason = "no library wraps this option")]
    // SAFETY: the socket is borrowed, so it is open, and the value is a number of four bytes.
    let answer = unsafe {
        let value = 1_i32.to_ne_bytes();
        setsockopt(
            SOCKET(handle),
            SOL_SOCKET,
            SO_EXCLUSIVEADDRUSE,
            Some(&value),
        )
    };
    if answer == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = bind(address)?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

/// The first port above `port` that is free on all addresses, the loopbacks of both families among
/// them: listening is what proves it.
fn next_free(port: u16, wanted: &[SocketAddr]) -> Option<u16> {
    let is_free = |port: u16| {
        let loopbacks = [
            SocketAddr::from((Ipv4Addr::LOCALHOST, port)),
            SocketAddr::from((Ipv6Addr::LOCALHOST, port)),
        ];
        let all = wanted
            .iter()
            .map(|address| SocketAddr::new(address.ip(), port))
            .chain(loopbacks);
        all.into_iter().all(|address| {
            let listened = bind(address).and_then(|socket| socket.listen(1));
            // An address family that the machine has not is nobody's.
            listened.is_ok_and(|()| !answers(address)) || !is_taken(address) && address.is_ipv6()
        })
    };
    (1..=MAX_TRIED)
        .filter_map(|step| port.checked_add(step))
        .find(|port| is_free(*port))
}

/// Whether somebody answers, on systems where a successful binding does not tell.
fn answers(address: SocketAddr) -> bool {
    !cfg!(target_os = "linux") && is_taken(address)
}

#[cfg(target_os = "linux")]
fn holder_of(port: u16) -> Option<PortHolder> {
    linux::holder_of(port)
}

/// Other systems tell this to their own tools alone.
#[cfg(not(target_os = "linux"))]
fn holder_of(_port: u16) -> Option<PortHolder> {
    None
}

#[cfg(target_os = "linux")]
mod linux {
    use super::PortHolder;
    use std::collections::HashSet;
    use std::fs;

    /// Processes that are looked at.
    const MAX_PROCESSES: usize = 20_000;
    /// State of a listening socket in the kernel's table.
    const LISTENING: &str = "0A";

    /// The process with a socket that listens on this port. Sockets of other users' processes are
    /// known by number alone, and then nobody is found.
    pub(super) fn holder_of(port: u16) -> Option<PortHolder> {
        let sockets: HashSet<String> = ["/proc/net/tcp", "/proc/net/tcp6"]
            .iter()
            .filter_map(|table| fs::read_to_string(table).ok())
            .flat_map(|table| listeners(&table, port))
            .map(|inode| format!("socket:[{inode}]"))
            .collect();
        if sockets.is_empty() {
            return None;
        }
        let own = std::process::id();
        fs::read_dir("/proc")
            .ok()?
            .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
            .filter(|process| *process != own)
            .take(MAX_PROCESSES)
            .find(|process| has_one_of(*process, &sockets))
            .map(|process| PortHolder {
                program: name_of(process),
                process,
            })
    }

    /// Inodes of the sockets that listen on a port, of the text of `/proc/net/tcp` or `tcp6`.
    pub(super) fn listeners(table: &str, port: u16) -> Vec<String> {
        let wanted = format!(":{port:04X}");
        table
            .lines()
            .skip(1)
            .filter_map(|line| {
                let fields: Vec<&str> = line.split_whitespace().collect();
                let is_wanted = fields.get(1)?.ends_with(&wanted) && *fields.get(3)? == LISTENING;
                is_wanted
                    .then(|| fields.get(9).map(|&inode| inode.to_owned()))
                    .flatten()
            })
            .collect()
    }

    fn has_one_of(process: u32, sockets: &HashSet<String>) -> bool {
        fs::read_dir(format!("/proc/{process}/fd"))
            .into_iter()
            .flatten()
            .filter_map(|entry| fs::read_link(entry.ok()?.path()).ok())
            .any(|target| {
                target
                    .to_str()
                    .is_some_and(|target| sockets.contains(target))
            })
    }

    /// The program's file, or what the kernel calls the process: it may be cut off or be a thread's.
    fn name_of(process: u32) -> String {
        let by_file = fs::read_link(format!("/proc/{process}/exe"))
            .ok()
            .and_then(|path| Some(path.file_name()?.to_str()?.to_owned()));
        let by_kernel = || {
            let name = fs::read_to_string(format!("/proc/{process}/comm")).ok()?;
            Some(name.trim().to_owned())
        };
        by_file
            .or_else(by_kernel)
            .unwrap_or_else(|| "a program".to_owned())
            .chars()
            .filter(|character| !character.is_control())
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener as StdTcpListener;

    #[cfg(target_os = "linux")]
    #[test]
    fn the_kernels_table_is_read() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n\
               0: 00000000:1FFD 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4711 1 0 100 0 0 10 0\n\
               1: 0100007F:1FFD 0100007F:C350 01 00000000:00000000 00:00000000 00000000     0        0 4712 1 0 20 4 30 10 -1\n\
               2: 0100007F:1FFE 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 4713 1 0 100 0 0 10 0\n\
             \x20broken line\n";
        assert_eq!(linux::listeners(table, 8189), ["4711"]);
        assert_eq!(linux::listeners(table, 8190), ["4713"]);
        assert!(linux::listeners(table, 8191).is_empty());
        let six = "  sl  local_address                         remote_address                        st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n\
               0: 00000000000000000000000000000000:1FFD 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4714 1 0 100 0 0 10 0\n";
        assert_eq!(linux::listeners(six, 8189), ["4714"]);
    }

    #[test]
    fn what_is_said_names_the_program_and_a_free_port() {
        let mut taken = PortTaken {
            address: ([127, 0, 0, 1], 8189).into(),
            holder: Some(PortHolder {
                program: "python3".to_owned(),
                process: 7,
            }),
            next_free: Some(8190),
        };
        assert_eq!(
            taken.to_string(),
            "port 8189 is used by python3 (process 7); port 8190 is free"
        );
        taken.holder = None;
        taken.next_free = None;
        assert_eq!(taken.to_string(), "port 8189 is used by another program");
    }

    #[test]
    fn a_port_held_on_one_loopback_is_no_port_for_the_other() {
        let Ok(held) = StdTcpListener::bind((Ipv6Addr::LOCALHOST, 0)) else {
            return;
        };
        let port = held.local_addr().unwrap().port();
        let wanted = [SocketAddr::from((Ipv4Addr::LOCALHOST, port))];
        let taken = is_held_beside(&wanted).unwrap();
        assert_eq!(taken.address, SocketAddr::from((Ipv6Addr::LOCALHOST, port)));
        assert!(taken.next_free.is_some_and(|free| free > port));
        drop(held);
        assert_eq!(is_held_beside(&wanted), None);
        let any = [SocketAddr::from((Ipv4Addr::LOCALHOST, 0))];
        assert_eq!(is_held_beside(&any), None);
    }
}
