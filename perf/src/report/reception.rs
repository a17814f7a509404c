//! The two ways from a network card's buffers into a device's memory, side by side.

use genie_gpudev::receive::{PathComparison, PathRate};
use serde::Serialize;

use super::rows::number;
use crate::options::size::show;

/// What a way carried.
#[derive(Clone, Debug, Serialize)]
pub struct Way {
    /// Of the frames' own bytes that reached their places.
    pub gbit_per_s: f64,
    /// Bytes that the device was given at a time, on average.
    pub batch_bytes: f64,
    /// Frames that were found corrupt, of which none was sent.
    pub corrupt_frames: u64,
}

/// Both ways, with frames of one size.
#[derive(Clone, Debug, Serialize)]
pub struct Reception {
    /// Bytes of data of a frame.
    pub frame_bytes: u32,
    /// Frames in host memory, checked by the CPU, copied by the device.
    pub staged: Way,
    /// Frames in the device's memory, checked and put in their places there.
    pub direct: Way,
    /// Above 1: staging has a penalty.
    pub direct_over_staged: f64,
    /// What the numbers do not say.
    pub note: String,
}

impl From<PathComparison> for Reception {
    fn from(found: PathComparison) -> Self {
        let way = |rate: PathRate| Way {
            gbit_per_s: rate.bytes_per_s * 8.0 / 1e9,
            batch_bytes: rate.batch_bytes,
            corrupt_frames: rate.corrupt,
        };
        Self {
            frame_bytes: found.frame_bytes,
            staged: way(found.staged),
            direct: way(found.direct),
            direct_over_staged: found.direct_over_staged,
            note: found.note.to_owned(),
        }
    }
}

impl Reception {
    /// Whether every frame was as it was sent.
    #[must_use]
    pub fn is_right(&self) -> bool {
        self.staged.corrupt_frames == 0 && self.direct.corrupt_frames == 0
    }

    /// Its row, for a person: under [`HEAD`].
    #[must_use]
    pub fn row(&self) -> [String; 6] {
        [
            show(u64::from(self.frame_bytes)),
            number(self.staged.gbit_per_s),
            number(self.direct.gbit_per_s),
            number(self.direct_over_staged),
            (self.staged.corrupt_frames + self.direct.corrupt_frames).to_string(),
            self.note.clone(),
        ]
    }
}

/// What the columns of a row are.
pub const HEAD: [&str; 6] = [
    "frame",
    "staged Gbit/s",
    "direct Gbit/s",
    "direct/staged",
    "corrupt",
    "note",
];

#[cfg(test)]
mod tests {
    use super::super::sample::{reception, report};

    #[test]
    fn a_frame_that_was_damaged_makes_a_report_wrong() {
        let mut report = report(Vec::new());
        report.receptions.push(reception());
        assert!(report.is_right());
        report.receptions[0].direct.corrupt_frames = 1;
        assert!(!report.is_right());
    }
}
