//! How a connection ends, in good order and not.

use std::io::{self, IoSlice};

use genie_tls::{TlsRead, TlsWrite};
use rustls::AlertDescription;

use crate::pair::{VERSIONS, pair, pattern};

/// What a half seals.
fn sealed(half: &mut TlsWrite, bytes: &[u8]) -> Vec<u8> {
    let mut cipher = Vec::new();
    half.write(&mut cipher, &mut [IoSlice::new(bytes)], &mut |_| Ok(()))
        .unwrap();
    cipher
}

/// All that can be read of `cipher`, and how it ends: twice, since that must not change.
fn read_all(half: &mut TlsRead, mut cipher: &[u8]) -> (Vec<u8>, io::Result<()>) {
    let mut bytes = Vec::new();
    let mut some = [0; 5000];
    let end = loop {
        match half.read(&mut cipher, &mut some) {
            Ok(0) => break Ok(()),
            Ok(n) => bytes.extend_from_slice(&some[..n]),
            Err(error) => break Err(error),
        }
    };
    let again = half.read(&mut cipher, &mut some);
    match &end {
        Ok(()) => assert_eq!(again.unwrap(), 0),
        Err(error) => assert_eq!(again.unwrap_err().kind(), error.kind()),
    }
    (bytes, end)
}

#[test]
fn a_peer_that_says_so_is_done() {
    for version in VERSIONS {
        let [mut a, mut b] = pair(version);
        let sent = pattern(1, 30_000);
        let mut cipher = sealed(&mut a.write, &sent);
        a.write.finish(&mut cipher, &mut |_| Ok(())).unwrap();
        // What follows is not looked at.
        cipher.extend_from_slice(&[0xff; 100]);
        let (got, end) = read_all(&mut b.read, &cipher);
        assert!(got == sent);
        end.unwrap();
        // The other direction goes on.
        let answer = sealed(&mut b.write, b"answer");
        assert_eq!(read_all(&mut a.read, &answer).0, b"answer");
    }
}

#[test]
fn a_cut_is_no_end() {
    for version in VERSIONS {
        let sent = pattern(2, 30_000);
        // Between two records, and within one.
        for missing in [0, 1, 20] {
            let [mut a, mut b] = pair(version);
            let cipher = sealed(&mut a.write, &sent);
            let (got, end) = read_all(&mut b.read, &cipher[..cipher.len() - missing]);
            assert_eq!(end.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
            assert!(sent.starts_with(&got));
            assert_eq!(got.len() == sent.len(), missing == 0);
        }
    }
}

#[test]
fn what_came_before_a_violation_is_read_and_the_peer_is_told() {
    let [mut a, mut b] = pair(&rustls::version::TLS13);
    // The last read is a short one.
    let sent = pattern(3, 42_001);
    let mut cipher = sealed(&mut a.write, &sent);
    let good = cipher.len();
    cipher.extend(sealed(&mut a.write, b"bad"));
    cipher[good + 8] ^= 1;
    cipher.extend(sealed(&mut a.write, b"late"));
    let (got, end) = read_all(&mut b.read, &cipher);
    assert!(got == sent);
    assert_eq!(end.unwrap_err().kind(), io::ErrorKind::InvalidData);
    assert!(b.read.has_more(), "the error");

    let mut answer = Vec::new();
    let mut parts = [IoSlice::new(b"x")];
    let refused = b.write.write(&mut answer, &mut parts, &mut |_| Ok(()));
    assert_eq!(refused.unwrap_err().kind(), io::ErrorKind::InvalidData);
    b.write.finish(&mut answer, &mut |_| Ok(())).unwrap();
    let (nothing, end) = read_all(&mut a.read, &answer);
    assert!(nothing.is_empty());
    let error = end.unwrap_err().into_inner().unwrap();
    assert_eq!(
        error.downcast_ref::<rustls::Error>(),
        Some(&rustls::Error::AlertReceived(
            AlertDescription::BadRecordMac
        ))
    );
}

#[test]
fn bytes_that_are_no_tls_are_refused() {
    for hostile in [
        &[0xff; 200_000][..],
        &[0x17, 3, 3, 0xff, 0xff, 0],
        b"GET / HTTP/1.1\r\n",
    ] {
        let [_, mut b] = pair(&rustls::version::TLS13);
        let (got, end) = read_all(&mut b.read, hostile);
        assert!(got.is_empty());
        assert_eq!(end.unwrap_err().kind(), io::ErrorKind::InvalidData);
    }
}
