//! Whose socket it is that answers: between the choice of a port and the engine's start another
//! program may take it, and must not be taken for the engine.

use std::collections::HashSet;
use std::fs;
use std::net::SocketAddr;

/// State of a listening socket in `/proc/net/tcp`.
const LISTENS: &str = "0A";

/// Whether a process of the group `engine` listens at `address`. `true` where the system does not
/// tell, so that nothing is kept from starting for that reason.
pub(super) fn belongs_to(address: SocketAddr, engine: u32) -> bool {
    let Ok(table) = fs::read_to_string("/proc/net/tcp") else {
        return true;
    };
    let sockets = listening(&table, address.port());
    sockets.is_empty() || processes_of(engine).any(|pid| holds(pid, &sockets))
}

/// The sockets that listen on `port`, as the links in `/proc/<pid>/fd` name them.
fn listening(table: &str, port: u16) -> HashSet<String> {
    let lines = table.lines().skip(1);
    let sockets = lines.filter_map(|line| {
        let mut fields = line.split_whitespace().skip(1);
        let (_, local_port) = fields.next()?.split_once(':')?;
        let state = fields.nth(1)?;
        let inode = fields.nth(5)?;
        let is_meant = u16::from_str_radix(local_port, 16) == Ok(port) && state == LISTENS;
        is_meant.then(|| format!("socket:[{inode}]"))
    });
    sockets.collect()
}

fn processes_of(group: u32) -> impl Iterator<Item = u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(move |pid| group_of(*pid) == Some(group))
}

/// The fifth field of `/proc/<pid>/stat`; the second is a name in brackets that may hold anything.
fn group_of(pid: u32) -> Option<u32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_whitespace().nth(2)?.parse().ok()
}

fn holds(pid: u32, sockets: &HashSet<String>) -> bool {
    let files = fs::read_dir(format!("/proc/{pid}/fd"))
        .into_iter()
        .flatten();
    files.flatten().any(|file| {
        fs::read_link(file.path())
            .is_ok_and(|link| link.to_str().is_some_and(|name| sockets.contains(name)))
    })
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn the_table_of_the_kernel() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n\
            \x20  0: 0100007F:1FFC 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4711 1 0\n\
            \x20  1: 0100007F:1FFC 0100007F:A000 01 00000000:00000000 00:00000000 00000000     0        0 4712 1 0\n\
            \x20  2: 00000000:0016 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4713 1 0\n\
            nonsense\n";
        assert_eq!(listening(table, 8188), ["socket:[4711]".to_owned()].into());
        assert_eq!(listening(table, 8189), HashSet::new());
    }

    #[test]
    fn our_own_socket_is_ours_and_nobody_elses() {
        let server = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let address = server.local_addr().unwrap();
        let own_group = group_of(std::process::id()).unwrap();
        assert!(belongs_to(address, own_group));
        assert!(!belongs_to(address, 1 << 30));
    }
}
