//! How many connections the gateway's clients may have, in all and of one process.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;

/// Connections at a time, of all kinds.
const ALL_MAX: usize = 512;
/// Of one process: a few for each of its sessions.
const PROCESS_MAX: usize = 128;

/// Who has how many.
#[derive(Debug, Default)]
pub struct Seats(Mutex<HashMap<i32, usize>>);

/// A connection's, until it is dropped.
#[derive(Debug)]
pub struct Seat {
    seats: Arc<Seats>,
    process: i32,
}

impl Seats {
    /// One for a connection of `process`.
    ///
    /// # Errors
    /// Why there is none, for its program.
    pub fn take(self: &Arc<Self>, process: i32) -> Result<Seat, String> {
        let mut taken = self.0.lock();
        let all: usize = taken.values().sum();
        if all >= ALL_MAX {
            return Err(format!("the gateway has {ALL_MAX} connections already"));
        }
        let own = taken.entry(process).or_default();
        if *own >= PROCESS_MAX {
            return Err(format!(
                "process {process} has {PROCESS_MAX} connections to the gateway already: close \
                 some sessions"
            ));
        }
        *own += 1;
        Ok(Seat {
            seats: Arc::clone(self),
            process,
        })
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut taken = self.seats.0.lock();
        if let Some(own) = taken.get_mut(&self.process) {
            *own -= 1;
            if *own == 0 {
                taken.remove(&self.process);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_process_leaves_room_for_others() {
        let seats = Arc::new(Seats::default());
        let mut of_one: Vec<_> = (0..PROCESS_MAX).map(|_| seats.take(1).unwrap()).collect();
        assert!(seats.take(1).unwrap_err().contains("process 1 has 128"));
        assert!(seats.take(2).is_ok());
        of_one.pop();
        assert!(seats.take(1).is_ok());
        drop(of_one);
        assert!(seats.0.lock().is_empty(), "nothing is kept of who left");
    }

    #[test]
    fn all_together_have_a_bound() {
        let seats = Arc::new(Seats::default());
        let of_all: Vec<_> = (0..ALL_MAX)
            .map(|at| seats.take((at / PROCESS_MAX) as i32).unwrap())
            .collect();
        assert!(seats.take(-1).is_err());
        drop(of_all);
        assert!(seats.take(-1).is_ok());
    }
}
