//! Every known way in which one user of a ComfyUI could see, change or disturb what is another's,
//! tried through the gateway with an engine for each user: R reads, W writes, D disturbs, X comes
//! from foreign pages, S, U and M are defects of earlier gateways, C are behaviours of ComfyUI that
//! a gateway must tame. The names of the tests carry the rows. Bob tries, alice is the one it is
//! about, and each test also shows that she herself, or an admin, or the way before the gateway has
//! what bob is refused.
//!
//! Always with the demo engine. With `COMFYUI_DIR` (and `COMFYUI_PYTHON`) the same tests run before
//! the real ComfyUI, but for those in `rights`, whose gateways have other settings.
//!
//! What stays open, and why:
//!
//! | Row | What | Reason |
//! |---|---|---|
//! | R5, R6, W4, W6, C8 | custom nodes that read or write any file and are not on the gateway's list | nobody knows all nodes; the operating system closes it where it confines engines, elsewhere an admin adds them to `nodes.deny` |
//! | R13, R19, C13 | paths of this machine in an engine's own error texts, `/system_stats` and `/internal/folder_paths` | they tell of a user's own folders and of what is shared; no other user is named |
//! | R20, D11 | with `manager_admin_only` off, users reach ComfyUI-Manager | the setting says so; Sentinel warns where others share |
//! | W11 | a script in one's own files runs in one's own session | it is served to nobody else |
//! | D2, D3 | an engine whose worker was ended directly at its port takes jobs and runs none until an admin restarts it | the gateway refuses such prompts; the process lives, so nothing tells it from a long job |
//! | D12 | no quota for disk and memory; jobs for one GPU wait for each other | each user has a queue of his own, bodies are bounded, and file sizes where engines are confined |
//! | all | a program of this machine that is no engine reaches an engine's loopback port without the gateway, as the controls of these tests do | ComfyUI knows no password; confined engines cannot connect to each other |

mod disturbing;
mod graphs;
mod outside;
mod reading;
mod rights;
mod sockets;
mod world;
mod writing;

use anyhow::{Result, ensure};

#[test]
fn every_row_has_a_test() -> Result<()> {
    let sources = [
        include_str!("disturbing.rs"),
        include_str!("outside.rs"),
        include_str!("reading.rs"),
        include_str!("rights.rs"),
        include_str!("sockets.rs"),
        include_str!("writing.rs"),
    ];
    let named: Vec<&str> = sources
        .iter()
        .flat_map(|source| source.split("#[test]\nfn ").skip(1))
        .filter_map(|rest| rest.split('(').next())
        .flat_map(|name| name.split('_'))
        .collect();
    let rows = [
        ('r', 1..=20),
        ('w', 1..=11),
        ('d', 1..=14),
        ('x', 1..=5),
        ('s', 17..=32),
        ('u', 13..=16),
        ('u', 23..=24),
        ('m', 2..=2),
        ('c', 1..=15),
    ];
    for (letter, numbers) in rows {
        for number in numbers {
            let row = format!("{letter}{number}");
            ensure!(named.contains(&row.as_str()), "{row} has no test");
        }
    }
    Ok(())
}
