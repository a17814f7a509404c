//! What a record of a pool waits for, with the append lock free.

use genie_session::client::Draft;
use genie_session::record;

use super::super::{Error, Session};
use super::route::TAKEN;
use super::{BYTES, first_bytes};

/// What is missing before a record can be appended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum Wanted {
    /// Room in this device's log.
    Room(usize),
    /// Room for so many bytes of an upload.
    Bulk(usize, u64),
    /// A way from the one device to the other.
    Way(usize, usize),
    /// A value at a device to which there is no way.
    Relay(u64, usize),
}

impl Session {
    /// Sees to what records have found missing.
    ///
    /// # Errors
    /// Interrupted; the fault of a value that is relayed. A node that is lost says so to whoever uses
    /// it.
    pub(in super::super) fn provide(&self) -> Result<(), Error> {
        let wanted = {
            let mut append = self.append.lock();
            let pool = append.pool.as_mut();
            pool.map(|pool| std::mem::take(&mut pool.wanted))
        };
        for one in wanted.unwrap_or_default() {
            let done = match one {
                Wanted::Room(at) => self.appending(&[&self.lanes[at]], 0, |_| Ok(())),
                Wanted::Bulk(at, bytes) => self.appending(&[&self.lanes[at]], bytes, |_| Ok(())),
                Wanted::Way(from, to) => {
                    self.way(&self.lanes[from], &self.lanes[to]);
                    Ok(())
                }
                Wanted::Relay(value, to) => return self.relay_value(value, to),
            };
            if let Err(Error::Interrupted) = done {
                return Err(Error::Interrupted);
            }
        }
        Ok(())
    }

    /// Brings a value to a device through this process.
    fn relay_value(&self, value: u64, to: usize) -> Result<(), Error> {
        let known = {
            let append = self.append.lock();
            let places = append.pool.as_ref().map(|pool| &pool.places);
            let known = places.and_then(|places| places.get(value));
            known.and_then(|known| Some((self.living(known)?, known.bytes(), known.version())))
        };
        let Some((copy, bytes, version)) = known else {
            return Ok(());
        };
        let view = Draft {
            skeleton: &BYTES,
            storages: &[copy.id],
            params: &first_bytes(bytes),
            ..Draft::new(record::Kind::Send)
        };
        let (from, lane) = (&self.lanes[copy.device], &self.lanes[to]);
        let id = self.relay(from, &view, lane, bytes, 0)?;
        let mut append = self.append.lock();
        let pool = append.pool.as_mut();
        // Meanwhile another thread may have written it, or done the same.
        let is_it = |pool: &&mut Box<super::Pool>| {
            let known = pool.places.get(value);
            known.is_some_and(|known| known.version() == version && known.at(to).is_none())
        };
        match pool.filter(is_it) {
            Some(pool) => pool.places.add(value, to, id, TAKEN),
            None => append.logs[to].log.free(id),
        }
        Ok(())
    }
}
