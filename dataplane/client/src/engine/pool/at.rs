//! One door for programs that choose a device and for those that don't.

use genie_session::client::Draft;
use genie_session::machine::Metas;
use genie_session::record;

use super::super::append::SiteId;
use super::super::{Error, Next, Origin, Recorded, Session, Signature};
use super::At;

impl Session {
    /// Whether the program leaves it to the session where operators run.
    #[must_use]
    pub fn is_pool(&self) -> bool {
        self.is_pool
    }

    /// Indices that the program sees.
    #[must_use]
    pub fn indices(&self) -> usize {
        if self.is_pool { 1 } else { self.lanes.len() }
    }

    /// What is behind an index.
    #[must_use]
    pub fn index(&self, index: usize) -> Option<At<'_>> {
        match self.is_pool {
            true => (index == 0).then_some(At::Pool),
            false => self.lanes.get(index).map(At::Lane),
        }
    }

    /// What has this number in the process.
    #[must_use]
    pub fn numbered(&self, number: u16) -> Option<At<'_>> {
        let index = number.checked_sub(self.first().number)?;
        self.index(usize::from(index))
    }

    /// The number of what a tensor is on.
    #[must_use]
    pub fn number(&self, at: At<'_>) -> u16 {
        match at {
            At::Lane(lane) => lane.number,
            At::Pool => self.first().number,
        }
    }

    /// Fails once what is there is lost, or the session is over.
    ///
    /// # Errors
    /// Why it is.
    pub fn check_at(&self, at: At<'_>) -> Result<(), Error> {
        match at {
            At::Lane(lane) => lane.check(),
            At::Pool => self.usable(0).map(|_| ()),
        }
    }

    /// See [`Session::record_known`].
    ///
    /// # Errors
    /// As there.
    pub fn record_at(
        &self,
        at: At<'_>,
        draft: &Draft<'_>,
        signature: &Signature<'_>,
        name: impl Fn() -> &'static str,
        origin: Origin,
        site: SiteId,
    ) -> Result<Recorded, Error> {
        match at {
            At::Lane(lane) => self.record_known(lane, draft, signature, name, origin, site),
            At::Pool => self.record_placed(draft, signature, name, origin, site),
        }
    }

    /// See [`Session::call_sync`].
    ///
    /// # Errors
    /// As there.
    pub fn call_sync_at(
        &self,
        at: At<'_>,
        draft: &Draft<'_>,
        name: &'static str,
        origin: Origin,
        site: SiteId,
    ) -> Result<(u64, Metas), Error> {
        match at {
            At::Lane(lane) => self.call_sync(lane, draft, name, origin, site),
            At::Pool => self.call_sync_placed(draft, name, origin, site),
        }
    }

    /// A new storage of uninitialised bytes.
    ///
    /// # Errors
    /// The node is lost; interrupted.
    pub fn alloc(&self, at: At<'_>, bytes: u64, site: SiteId) -> Result<u64, Error> {
        let lane = match at {
            At::Lane(lane) => lane,
            At::Pool => return self.alloc_placed(bytes),
        };
        let bytes = [bytes as i64];
        let appended = self.record(lane, &Draft::alloc(&bytes), "", Origin::NONE, site)?;
        Ok(appended.first_fresh)
    }

    /// A storage has another size.
    ///
    /// # Errors
    /// The node is lost; interrupted.
    pub fn resize(&self, at: At<'_>, id: u64, bytes: u64) -> Result<(), Error> {
        let lane = match at {
            At::Lane(lane) => lane,
            At::Pool => return self.resize_placed(id, bytes),
        };
        let draft = Draft {
            storages: &[id],
            tail_numbers: &[bytes as i64],
            ..Draft::new(record::Kind::Resize)
        };
        self.record(lane, &draft, "", Origin::NONE, 0).map(|_| ())
    }

    /// A storage died. Never blocks for long; what is lost is no matter.
    pub fn free_at(&self, at: At<'_>, id: u64) {
        match at {
            At::Lane(lane) if lane.check().is_ok() => self.free(lane, id),
            At::Lane(_) => {}
            At::Pool => self.free_placed(id),
        }
    }

    /// See [`Session::upload`].
    ///
    /// # Errors
    /// As there.
    ///
    /// # Safety
    /// `source` is valid for `len` bytes during the call.
    pub unsafe fn upload_at(
        &self,
        at: At<'_>,
        id: u64,
        source: *const u8,
        len: usize,
        site: SiteId,
    ) -> Result<(), Error> {
        match at {
            // SAFETY: as the caller says.
            At::Lane(lane) => unsafe { self.upload(lane, id, source, len, site) },
            // SAFETY: as the caller says.
            At::Pool => unsafe { self.upload_placed(id, source, len, site) },
        }
    }

    /// See [`Session::fetch_ahead`].
    ///
    /// # Errors
    /// As there.
    pub fn fetch_at(
        &self,
        at: At<'_>,
        draft: &Draft<'_>,
        into: &mut [u8],
        whole: u64,
        next: Next<'_>,
        site: SiteId,
    ) -> Result<(), Error> {
        match at {
            At::Lane(lane) => self.fetch_ahead(lane, draft, into, whole, next, site),
            At::Pool => self.fetch_placed(draft, into, next, site),
        }
    }
}
