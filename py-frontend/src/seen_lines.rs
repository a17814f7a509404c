//! What this thread has found out of code and lines, so that it need not ask again.

use std::cell::RefCell;
use std::sync::atomic::{AtomicU64, Ordering};

use genie_client::engine::SiteId;

use crate::frames::{DEPTH_MAX, Frame};

/// Counts when what was found out of any code or line is no longer true.
static GENERATION: AtomicU64 = AtomicU64::new(0);

/// Places in each table; what does not fit takes the place of another.
const PLACES: usize = 1024;

struct Seen {
    generation: u64,
    /// By address of a code object: whether it is the user's.
    codes: Box<[(usize, bool); PLACES]>,
    /// By address of an instruction.
    sites: Box<[(usize, SiteId); PLACES]>,
}

thread_local! {
    static SEEN: RefCell<Option<Seen>> = const { RefCell::new(None) };
}

/// Addresses are even, and apart by the size of what lies there.
fn place(address: usize) -> usize {
    (address.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32) % PLACES
}

/// What was remembered may belong to others now.
pub fn forget_all() {
    GENERATION.fetch_add(1, Ordering::Release);
}

/// The line of the innermost frame that is the user's, where all of that was seen before; 0 where no
/// frame is the user's.
pub fn find() -> Option<SiteId> {
    let mut frame = Frame::innermost()?;
    SEEN.with_borrow(|seen| {
        let seen = seen.as_ref()?;
        if seen.generation != GENERATION.load(Ordering::Acquire) {
            return None;
        }
        for _ in 0..DEPTH_MAX {
            let Some(running) = frame else {
                return Some(0);
            };
            let code = running.code();
            match seen.codes[place(code)] {
                (known, true) if known == code => {
                    let at = running.instruction();
                    let (known, site) = seen.sites[place(at)];
                    return (known == at).then_some(site);
                }
                (known, false) if known == code => frame = running.back(),
                _ => return None,
            }
        }
        Some(0)
    })
}

/// It was found out, by asking Python, that this thread is in `site`. `is_user` tells of code that is
/// known.
pub fn remember(site: SiteId, is_user: impl Fn(usize) -> Option<bool>) {
    let Some(mut frame) = Frame::innermost() else {
        return;
    };
    let generation = GENERATION.load(Ordering::Acquire);
    SEEN.with_borrow_mut(|seen| {
        let seen = match seen {
            Some(seen) if seen.generation == generation => seen,
            _ => seen.insert(Seen {
                generation,
                codes: Box::new([(0, false); PLACES]),
                sites: Box::new([(0, 0); PLACES]),
            }),
        };
        for _ in 0..DEPTH_MAX {
            let Some(running) = frame else {
                return;
            };
            let code = running.code();
            let Some(is_user) = is_user(code) else {
                return;
            };
            seen.codes[place(code)] = (code, is_user);
            if is_user {
                let at = running.instruction();
                seen.sites[place(at)] = (at, site);
                return;
            }
            frame = running.back();
        }
    });
}
