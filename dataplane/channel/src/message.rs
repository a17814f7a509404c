//! What passes, one ring frame each: a tag (u8), then fields in little-endian order.

use crate::bulk::BULK_PART_MAX;
use crate::error::ChannelError;

/// Most bytes of the stream in one message.
pub const STREAM_MAX: usize = 32 << 10;
/// Most bytes of a text for a person.
pub const TEXT_MAX: usize = 512;

const STREAM: u8 = 1;
const SEND: u8 = 2;
const RECEIVE: u8 = 3;
const REFUSE: u8 = 4;
const FINISH: u8 = 5;
const SENT: u8 = 17;
const RECEIVED: u8 = 18;
const BULK_FAILED: u8 = 19;
const ENDED: u8 = 20;

/// What a program asks of the loop, besides carrying bytes. Lengths are those of one part
/// ([`crate::parts`]), in bytes; a place is an offset in the arena, or what program and loop agreed
/// upon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// At this point of the stream a bulk follows. It lies at `place`, where it stays unchanged
    /// until [`ToApp::Sent`].
    Send {
        /// Where it lies.
        place: u64,
        /// Its bytes.
        len: u64,
    },
    /// The next bulk of the peer's stream is to be put at `place`, of which the program keeps away
    /// until [`ToApp::Received`]. Bulk comes in the order of these.
    Receive {
        /// Where it goes.
        place: u64,
        /// Its bytes.
        len: u64,
    },
    /// The next bulk of the peer's stream is not wanted: nothing of it shall travel.
    Refuse {
        /// Its bytes.
        len: u64,
    },
    /// Nothing follows in the stream.
    Finish,
}

/// What a loop gets from a program: the stream, and every [`Command`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FromApp<'a> {
    /// The next bytes of the stream, at most [`STREAM_MAX`].
    Stream(&'a [u8]),
    /// [`Command::Send`].
    Send {
        /// Where it lies.
        place: u64,
        /// Its bytes.
        len: u64,
    },
    /// [`Command::Receive`].
    Receive {
        /// Where it goes.
        place: u64,
        /// Its bytes.
        len: u64,
    },
    /// [`Command::Refuse`].
    Refuse {
        /// Its bytes.
        len: u64,
    },
    /// [`Command::Finish`].
    Finish,
}

impl From<Command> for FromApp<'_> {
    fn from(command: Command) -> Self {
        match command {
            Command::Send { place, len } => Self::Send { place, len },
            Command::Receive { place, len } => Self::Receive { place, len },
            Command::Refuse { len } => Self::Refuse { len },
            Command::Finish => Self::Finish,
        }
    }
}

/// What a loop tells a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ToApp<'a> {
    /// The next bytes of the stream, at most [`STREAM_MAX`].
    Stream(&'a [u8]),
    /// The bulk at `place` was taken: the memory is the program's again.
    Sent {
        /// As in [`Command::Send`].
        place: u64,
    },
    /// The bulk is at `place`, whole.
    Received {
        /// As in [`Command::Receive`].
        place: u64,
    },
    /// A bulk will never be sent or received. Its memory is the program's again.
    BulkFailed {
        /// As in the command.
        place: u64,
        /// For a program: one of [`crate::failed`].
        code: u8,
        /// For a person, at most [`TEXT_MAX`] bytes; a longer one is cut.
        text: &'a str,
    },
    /// The connection is over; nothing follows.
    Ended {
        /// For a program: one of [`crate::ended`].
        code: u8,
        /// For a person, as in `BulkFailed`.
        text: &'a str,
    },
}

/// What a program gets from the loop.
pub type FromLoop<'a> = ToApp<'a>;

/// A message as bytes: fixed ones first, then what was borrowed.
pub(crate) struct Encoded<'a> {
    fixed: [u8; 17],
    fixed_len: usize,
    tail: &'a [u8],
}

impl<'a> Encoded<'a> {
    fn new(tag: u8, words: &[u64], code: Option<u8>, tail: &'a [u8]) -> Self {
        let mut fixed = [0; 17];
        fixed[0] = tag;
        let mut at = 1;
        for word in words {
            fixed[at..at + 8].copy_from_slice(&word.to_le_bytes());
            at += 8;
        }
        if let Some(code) = code {
            fixed[at] = code;
            at += 1;
        }
        Self {
            fixed,
            fixed_len: at,
            tail,
        }
    }

    pub(crate) fn parts(&self) -> [&[u8]; 2] {
        [&self.fixed[..self.fixed_len], self.tail]
    }

    pub(crate) fn len(&self) -> u64 {
        (self.fixed_len + self.tail.len()) as u64
    }
}

/// Bytes of a message that carries `bytes` of the stream.
pub(crate) fn stream_len(bytes: usize) -> u64 {
    1 + bytes as u64
}

/// Bytes of the stream, at most [`STREAM_MAX`] of them.
pub(crate) fn encode_stream(bytes: &[u8]) -> Result<Encoded<'_>, ChannelError> {
    if bytes.is_empty() || bytes.len() > STREAM_MAX {
        return Err(ChannelError::Invalid {
            what: "a piece of the stream",
            len: bytes.len() as u64,
            rule: "it has from 1 byte to 32 KiB",
        });
    }
    Ok(Encoded::new(STREAM, &[], None, bytes))
}

impl Command {
    pub(crate) fn encode(&self) -> Result<Encoded<'static>, ChannelError> {
        let checked = |what, len| {
            if is_part(len) {
                Ok(())
            } else {
                let rule = "a part has from 1 byte to 8 MiB (see `parts`)";
                Err(ChannelError::Invalid { what, len, rule })
            }
        };
        Ok(match *self {
            Self::Send { place, len } => {
                checked("a bulk to send", len)?;
                Encoded::new(SEND, &[place, len], None, &[])
            }
            Self::Receive { place, len } => {
                checked("a bulk to receive", len)?;
                Encoded::new(RECEIVE, &[place, len], None, &[])
            }
            Self::Refuse { len } => {
                checked("a bulk to refuse", len)?;
                Encoded::new(REFUSE, &[len], None, &[])
            }
            Self::Finish => Encoded::new(FINISH, &[], None, &[]),
        })
    }
}

fn is_part(len: u64) -> bool {
    (1..=BULK_PART_MAX).contains(&len)
}

impl<'a> FromApp<'a> {
    /// Takes a frame of the ring apart.
    ///
    /// # Errors
    /// Bytes that are no message.
    pub fn decode(frame: &'a [u8]) -> Result<Self, ChannelError> {
        let mut fields = Fields::new(frame)?;
        let message = match fields.tag {
            STREAM => return Ok(Self::Stream(fields.stream()?)),
            SEND => Self::Send {
                place: fields.word()?,
                len: fields.part_len()?,
            },
            RECEIVE => Self::Receive {
                place: fields.word()?,
                len: fields.part_len()?,
            },
            REFUSE => Self::Refuse {
                len: fields.part_len()?,
            },
            FINISH => Self::Finish,
            _ => return Err(ChannelError::Corrupt("a message of an unknown kind")),
        };
        fields.end()?;
        Ok(message)
    }
}

impl<'a> ToApp<'a> {
    pub(crate) fn encode(&self) -> Result<Encoded<'a>, ChannelError> {
        Ok(match *self {
            Self::Stream(bytes) => encode_stream(bytes)?,
            Self::Sent { place } => Encoded::new(SENT, &[place], None, &[]),
            Self::Received { place } => Encoded::new(RECEIVED, &[place], None, &[]),
            Self::BulkFailed { place, code, text } => {
                Encoded::new(BULK_FAILED, &[place], Some(code), cut(text).as_bytes())
            }
            Self::Ended { code, text } => {
                Encoded::new(ENDED, &[], Some(code), cut(text).as_bytes())
            }
        })
    }

    /// Takes a frame of the ring apart.
    ///
    /// # Errors
    /// Bytes that are no message.
    pub fn decode(frame: &'a [u8]) -> Result<Self, ChannelError> {
        let mut fields = Fields::new(frame)?;
        let message = match fields.tag {
            STREAM => return Ok(Self::Stream(fields.stream()?)),
            SENT => Self::Sent {
                place: fields.word()?,
            },
            RECEIVED => Self::Received {
                place: fields.word()?,
            },
            BULK_FAILED => Self::BulkFailed {
                place: fields.word()?,
                code: fields.byte()?,
                text: fields.text()?,
            },
            ENDED => Self::Ended {
                code: fields.byte()?,
                text: fields.text()?,
            },
            _ => return Err(ChannelError::Corrupt("a message of an unknown kind")),
        };
        fields.end()?;
        Ok(message)
    }
}

/// At most [`TEXT_MAX`] bytes of `text`, cut between characters.
pub(crate) fn cut(text: &str) -> &str {
    let mut end = text.len().min(TEXT_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

struct Fields<'a> {
    tag: u8,
    rest: &'a [u8],
}

impl<'a> Fields<'a> {
    fn new(frame: &'a [u8]) -> Result<Self, ChannelError> {
        match frame.split_first() {
            Some((&tag, rest)) => Ok(Self { tag, rest }),
            None => Err(ChannelError::Corrupt("an empty message")),
        }
    }

    fn stream(self) -> Result<&'a [u8], ChannelError> {
        if self.rest.is_empty() || self.rest.len() > STREAM_MAX {
            return Err(ChannelError::Corrupt("a piece of the stream is too long"));
        }
        Ok(self.rest)
    }

    fn word(&mut self) -> Result<u64, ChannelError> {
        let Some((word, rest)) = self.rest.split_first_chunk() else {
            return Err(ChannelError::Corrupt("a message was cut short"));
        };
        self.rest = rest;
        Ok(u64::from_le_bytes(*word))
    }

    fn part_len(&mut self) -> Result<u64, ChannelError> {
        match self.word()? {
            len if is_part(len) => Ok(len),
            _ => Err(ChannelError::Corrupt("a bulk of an impossible length")),
        }
    }

    fn byte(&mut self) -> Result<u8, ChannelError> {
        let Some((&byte, rest)) = self.rest.split_first() else {
            return Err(ChannelError::Corrupt("a message was cut short"));
        };
        self.rest = rest;
        Ok(byte)
    }

    fn text(&mut self) -> Result<&'a str, ChannelError> {
        if self.rest.len() > TEXT_MAX {
            return Err(ChannelError::Corrupt("a text is too long"));
        }
        let text = std::str::from_utf8(std::mem::take(&mut self.rest));
        text.map_err(|_| ChannelError::Corrupt("a text is not UTF-8"))
    }

    fn end(self) -> Result<(), ChannelError> {
        if self.rest.is_empty() {
            Ok(())
        } else {
            Err(ChannelError::Corrupt("a message is too long for its kind"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn bytes(encoded: &Encoded<'_>) -> Vec<u8> {
        let bytes = encoded.parts().concat();
        assert_eq!(bytes.len() as u64, encoded.len());
        bytes
    }

    #[test]
    fn messages_round_trip() {
        let (place, len) = (u64::MAX - 7, BULK_PART_MAX);
        for command in [
            Command::Send { place, len },
            Command::Receive { place: 0, len: 1 },
            Command::Refuse { len },
            Command::Finish,
        ] {
            let bytes = bytes(&command.encode().unwrap());
            assert_eq!(FromApp::decode(&bytes).unwrap(), FromApp::from(command));
            let longer = [&bytes[..], b"x"].concat();
            assert!(FromApp::decode(&longer).is_err());
            assert!(FromApp::decode(&bytes[..bytes.len() - 1]).is_err());
        }
        let stream = [7; STREAM_MAX];
        let encoded = bytes(&encode_stream(&stream).unwrap());
        assert_eq!(encoded.len() as u64, stream_len(STREAM_MAX));
        assert_eq!(FromApp::decode(&encoded).unwrap(), FromApp::Stream(&stream));
        let (code, text) = (3, "no memory");
        for told in [
            ToApp::Stream(b"x"),
            ToApp::Sent { place },
            ToApp::Received { place },
            ToApp::BulkFailed { place, code, text },
            ToApp::Ended { code, text: "" },
        ] {
            let bytes = bytes(&told.encode().unwrap());
            assert_eq!(ToApp::decode(&bytes).unwrap(), told);
        }
    }

    #[test]
    fn what_is_too_long_is_refused_or_cut() {
        for bad in [&[][..], &[0; STREAM_MAX + 1]] {
            assert!(encode_stream(bad).is_err());
            let frame = [&[STREAM], bad].concat();
            assert!(FromApp::decode(&frame).is_err());
            assert!(ToApp::decode(&frame).is_err());
        }
        for len in [0, BULK_PART_MAX + 1, u64::MAX] {
            assert!(Command::Send { place: 0, len }.encode().is_err());
            let frame = Encoded::new(RECEIVE, &[0, len], None, &[]);
            assert!(FromApp::decode(&bytes(&frame)).is_err());
        }
        let text = "é".repeat(TEXT_MAX);
        let encoded = bytes(
            &ToApp::Ended {
                code: 0,
                text: &text,
            }
            .encode()
            .unwrap(),
        );
        let Ok(ToApp::Ended { text, .. }) = ToApp::decode(&encoded) else {
            panic!("not what was sent");
        };
        assert_eq!(text.len(), TEXT_MAX);
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_message_or_an_error(
            frame in prop::collection::vec(any::<u8>(), 0..600),
            tag in 0_u8..22,
        ) {
            let mut tagged = frame.clone();
            if let Some(first) = tagged.first_mut() {
                *first = tag;
            }
            for frame in [&frame, &tagged] {
                let again = match FromApp::decode(frame) {
                    Ok(FromApp::Stream(stream)) => Some(bytes(&encode_stream(stream).unwrap())),
                    Ok(FromApp::Send { place, len }) => {
                        Some(bytes(&Command::Send { place, len }.encode().unwrap()))
                    }
                    Ok(FromApp::Receive { place, len }) => {
                        Some(bytes(&Command::Receive { place, len }.encode().unwrap()))
                    }
                    Ok(FromApp::Refuse { len }) => {
                        Some(bytes(&Command::Refuse { len }.encode().unwrap()))
                    }
                    Ok(FromApp::Finish) => Some(bytes(&Command::Finish.encode().unwrap())),
                    Err(_) => None,
                };
                if let Some(again) = again {
                    prop_assert_eq!(&again, frame);
                }
                if let Ok(told) = ToApp::decode(frame) {
                    prop_assert_eq!(&bytes(&told.encode().unwrap()), frame);
                }
            }
        }
    }
}
