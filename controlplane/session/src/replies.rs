//! Answers of a node that a client may not have: kept until it confirms them, so that a session
//! can outlive a connection.
//!
//! Numbering is by count: both ends count the frames that went from node to client.

use std::collections::VecDeque;

use crate::WireError;

/// Frames that were sent and not confirmed, with their bytes.
#[derive(Debug)]
pub struct ReplyLog<F> {
    first: u64,
    kept: VecDeque<F>,
    max: usize,
}

impl<F: Clone> ReplyLog<F> {
    /// Keeps at most `max` frames.
    #[must_use]
    pub fn new(max: usize) -> Self {
        Self {
            first: 0,
            kept: VecDeque::new(),
            max,
        }
    }

    /// Keeps a frame that is being sent; gives its number, or `None` if too many are kept: the
    /// client must confirm some first.
    pub fn push(&mut self, frame: F) -> Option<u64> {
        if self.kept.len() >= self.max {
            return None;
        }
        self.kept.push_back(frame);
        Some(self.first + self.kept.len() as u64 - 1)
    }

    /// The client has every frame below `count`.
    ///
    /// # Errors
    /// More than was ever sent.
    pub fn confirmed(&mut self, count: u64) -> Result<(), WireError> {
        let sent = self.first + self.kept.len() as u64;
        if count > sent {
            return Err(WireError::Malformed(
                "a confirmation of what was never sent",
            ));
        }
        while self.first < count {
            self.kept.pop_front();
            self.first += 1;
        }
        Ok(())
    }

    /// On a new connection of a client that has every frame below `count`: what to send again.
    ///
    /// # Errors
    /// More than was ever sent, or less than was confirmed.
    pub fn resume(&mut self, count: u64) -> Result<Vec<F>, WireError> {
        if count < self.first {
            return Err(WireError::Malformed("a resume before what was confirmed"));
        }
        self.confirmed(count)?;
        Ok(self.kept.iter().cloned().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::ReplyLog;

    #[test]
    fn keeps_until_confirmed_and_no_more_than_its_bound() {
        let mut log = ReplyLog::new(2);
        assert_eq!(log.push('a'), Some(0));
        assert_eq!(log.push('b'), Some(1));
        assert_eq!(log.push('c'), None);
        assert!(log.confirmed(1).is_ok());
        assert_eq!(log.push('c'), Some(2));
        assert_eq!(log.resume(1), Ok(vec!['b', 'c']));
        assert_eq!(log.resume(3), Ok(vec![]));
        assert!(log.resume(2).is_err());
        assert!(log.confirmed(4).is_err());
    }
}
