//! What the answers of an engine that was ready say about it: a pure function of what was seen.

use std::io::ErrorKind;
use std::time::Duration;

use super::readiness::ProbeError;

/// Pause between two questions to an engine that is ready.
pub(super) const ASK_EVERY: Duration = Duration::from_secs(10);
/// An engine that is this long without an answer is said to be silent.
const SILENT_AFTER: Duration = Duration::from_secs(60);
/// Refused connections in a row that mean that ComfyUI starts anew inside its process, as
/// ComfyUI-Manager's *Restart* makes it.
const REFUSED: u32 = 2;

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Finding {
    /// Nothing new.
    Same,
    /// It has not answered for so long; told once.
    Silent(Duration),
    /// It answers again after it was silent.
    Back,
    /// Its process lives and its port is shut: it starts anew.
    Restarting,
}

/// What was seen so far.
#[derive(Debug, Default)]
pub(super) struct Liveness {
    refused: u32,
    /// Time without an answer so far.
    silent_for: Duration,
    is_told: bool,
}

impl Liveness {
    /// Notes an answer, or why there was none; `took` is the time since the one before.
    pub(super) fn note<Answer>(
        &mut self,
        seen: &Result<Answer, ProbeError>,
        took: Duration,
    ) -> Finding {
        match seen {
            Ok(_) => {
                let was_told = self.is_told;
                *self = Self::default();
                return if was_told {
                    Finding::Back
                } else {
                    Finding::Same
                };
            }
            // Any other failure to connect may be our own, such as too many open files.
            Err(ProbeError::Connection(error)) if error.kind() == ErrorKind::ConnectionRefused => {
                self.refused += 1;
            }
            Err(_) => self.refused = 0,
        }
        self.silent_for += took;
        if self.refused >= REFUSED {
            *self = Self::default();
            return Finding::Restarting;
        }
        if self.silent_for >= SILENT_AFTER && !self.is_told {
            self.is_told = true;
            return Finding::Silent(self.silent_for);
        }
        Finding::Same
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shut_port_means_a_restart_and_a_long_silence_is_told_once() {
        let refused = || Err(ProbeError::Connection(ErrorKind::ConnectionRefused.into()));
        let late = || Err(ProbeError::TimedOut);
        let no_files = || {
            Err(ProbeError::Connection(std::io::Error::from_raw_os_error(
                24,
            )))
        };
        type Seen = Result<(), ProbeError>;
        let table: [(Vec<Seen>, Vec<Finding>); 5] = [
            (
                vec![Ok(()), refused(), Ok(()), refused(), refused(), Ok(())],
                vec![
                    Finding::Same,
                    Finding::Same,
                    Finding::Same,
                    Finding::Same,
                    Finding::Restarting,
                    Finding::Same,
                ],
            ),
            (
                vec![late(), late(), late(), late(), Ok(())],
                vec![
                    Finding::Same,
                    Finding::Same,
                    Finding::Same,
                    Finding::Silent(Duration::from_secs(60)),
                    Finding::Back,
                ],
            ),
            (
                vec![late(), late(), late(), late(), late()],
                vec![
                    Finding::Same,
                    Finding::Same,
                    Finding::Same,
                    Finding::Silent(Duration::from_secs(60)),
                    Finding::Same,
                ],
            ),
            (vec![refused(), late(), refused()], vec![Finding::Same; 3]),
            (vec![no_files(), no_files(), Ok(())], vec![Finding::Same; 3]),
        ];
        for (seen, expected) in table {
            let mut liveness = Liveness::default();
            let found: Vec<Finding> = seen
                .iter()
                .map(|seen| liveness.note(seen, Duration::from_secs(15)))
                .collect();
            assert_eq!(found, expected, "{seen:?}");
        }
    }
}
