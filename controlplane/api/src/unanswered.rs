//! Why a call was not answered, for a person: what tonic says of it is its own errors, one in another.

use std::error::Error;
use std::io;

use rustls::InvalidMessage;

/// What HTTP/2 says of the alert that a daemon with TLS sends to who speaks without.
const ALERT_AS_FRAME: &str = "frame with invalid size";
/// What is left of an alert that came after the handshake: HTTP/2 keeps the text of an error.
const ALERT: &str = "received fatal alert: ";

/// Why there was no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unanswered {
    /// Nobody is there, or not any more.
    Gone(String),
    /// Somebody is, and one of the two does not trust the other.
    Untrusted(String),
}

impl Unanswered {
    /// What there is to say of who speaks TLS to a client that does not.
    pub const SPEAKS_TLS: &str =
        "it speaks TLS: the authority, a certificate and its key are needed";

    /// The cause of `error` that says most.
    #[must_use]
    pub fn of(error: &(dyn Error + 'static)) -> Self {
        let causes = || std::iter::successors(Some(error), |&error| cause(error));
        if let Some(tls) = causes().find_map(|cause| cause.downcast_ref::<rustls::Error>()) {
            return Self::Untrusted(distrust(tls));
        }
        let texts: Vec<_> = causes().map(ToString::to_string).collect();
        if texts.iter().any(|text| text.contains(ALERT_AS_FRAME)) {
            return Self::Untrusted(Self::SPEAKS_TLS.to_owned());
        }
        // The innermost is nothing but its text.
        let alert = (texts.iter().rev()).find_map(|text| text.split_once(ALERT));
        if let Some((_, alert)) = alert {
            return Self::Untrusted(turned_away(alert));
        }
        // The outermost only say that there was an error.
        let says = |cause: &&(dyn Error + 'static)| {
            !cause.is::<tonic::Status>() && !cause.is::<tonic::transport::Error>()
        };
        let told = causes().filter(says).map(ToString::to_string);
        let told = told.reduce(|text, inner| match text.contains(&inner) {
            true => text,
            false => format!("{text}: {inner}"),
        });
        Self::Gone(told.or(texts.into_iter().next_back()).unwrap_or_default())
    }

    /// What a person is told.
    #[must_use]
    pub fn message(&self) -> &str {
        match self {
            Self::Gone(message) | Self::Untrusted(message) => message,
        }
    }
}

/// What is in an error. An `io::Error` hides what it was made of: its source is the source of that.
fn cause<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a (dyn Error + 'static)> {
    match error
        .downcast_ref::<io::Error>()
        .and_then(io::Error::get_ref)
    {
        Some(inner) => Some(inner),
        None => error.source(),
    }
}

fn distrust(error: &rustls::Error) -> String {
    match error {
        rustls::Error::InvalidCertificate(why) => format!(
            "its certificate is refused ({why:?}): the authority given did not sign it, or not for this \
             host"
        ),
        rustls::Error::AlertReceived(alert) => turned_away(&format!("{alert:?}")),
        rustls::Error::InvalidMessage(InvalidMessage::InvalidContentType) => {
            "it does not speak TLS: leave out the authority, certificate and key, or give it its own"
                .to_owned()
        }
        other => format!("the TLS handshake failed: {other}"),
    }
}

fn turned_away(alert: &str) -> String {
    format!(
        "it refuses the certificate that was shown, or that none was ({alert}): it lets in whom the \
         authority of its --tls-client-ca signed"
    )
}

#[cfg(test)]
mod tests {
    use rustls::AlertDescription as Alert;

    use super::*;

    fn outer(inner: impl Error + Send + Sync + 'static) -> io::Error {
        io::Error::other(io::Error::new(io::ErrorKind::InvalidData, inner))
    }

    #[test]
    fn what_is_within_is_found() {
        let said = Unanswered::of(&outer(rustls::Error::AlertReceived(Alert::UnknownCA)));
        assert!(matches!(&said, Unanswered::Untrusted(_)), "{said:?}");
        assert!(said.message().contains("--tls-client-ca"), "{said:?}");
        let gone = Unanswered::of(&outer(io::Error::from(io::ErrorKind::ConnectionRefused)));
        assert_eq!(gone, Unanswered::Gone("connection refused".to_owned()));
    }
}
