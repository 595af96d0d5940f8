//! Proof of a deletion: a statement of which keys were destroyed, signed with the vault's own key.
//!
//! The tenant is named by its handle, a keyed digest: the certificates on the disk are no list of
//! former customers. Who holds one knows which tenant it was made for.

use std::fmt::Write as _;

use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use jiff::Timestamp;

use super::StoreId;
use super::key::Key;
use super::keyring::Tombstone;

const TITLE: &str = "tenantry deletion certificate 1";
const SIGNATURE: &str = "signature ";
const SIGNER: &str = "signed by ";

/// A signed statement that a tenant's keys were destroyed: lines of text, the last one the signature
/// of all before it (Ed25519, RFC 8032).
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Certificate {
    text: String,
}

/// What a certificate says.
pub(super) struct Deletion {
    pub(super) store_id: StoreId,
    pub(super) tombstone: Tombstone,
    /// When the last level was reached.
    pub(super) now: Timestamp,
    /// Those that are known to hold the tenant still.
    pub(super) backups: Vec<String>,
}

/// The public key of the signing key that `seed` is the seed of, in hex.
pub(super) fn public_key(seed: &Key) -> String {
    hex(seed.signing_key().verifying_key().as_bytes())
}

impl Deletion {
    pub(super) fn certify(&self, seed: &Key) -> Certificate {
        let Self { store_id, tombstone, now, backups } = self;
        let signing = seed.signing_key();
        let tenant = hex(&tombstone.handle.0);
        let terms = match tombstone.last_term {
            // It was sealed when it was removed, and how many there were is in what was destroyed.
            0 => "all".to_owned(),
            1 => "1".to_owned(),
            last => format!("1 to {last}"),
        };
        let backups = match &backups[..] {
            [] => "none known".to_owned(),
            // One line, whatever they are called.
            all => all
                .iter()
                .map(|name| name.escape_default().to_string())
                .collect::<Vec<_>>()
                .join(", "),
        };
        let mut text = format!(
            "{TITLE}\nstore {store_id}\ntenant {tenant}\nterms of its key destroyed: {terms}\n\
             keys destroyed {}\nstore rewritten {now}\nlevels S0 S1\n\
             backups that still hold it: {backups}\n{SIGNER}{}\n",
            tombstone.removed_at(),
            hex(signing.verifying_key().as_bytes()),
        );
        let signature = signing.sign(text.as_bytes());
        write!(text, "{SIGNATURE}{}", hex(&signature.to_bytes()))
            .and_then(|()| text.write_char('\n'))
            .expect("writing to a string does not fail");
        Certificate { text }
    }
}

impl Certificate {
    /// The document, as it is stored.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The tenant's handle, which is also the name of its file.
    pub fn handle(&self) -> &str {
        self.line("tenant ").unwrap_or_default()
    }

    /// The public key that signed it, in hex. Whoever relies on a certificate compares it with the
    /// one that the vault's operator told them.
    pub fn signer(&self) -> &str {
        self.line(SIGNER).unwrap_or_default()
    }

    /// Reads a certificate, and checks that it is what [`Self::signer`] signed, to the byte.
    pub fn verify(text: &str) -> Option<Self> {
        let certificate = Self { text: text.to_owned() };
        let (signed, signature) = text.rsplit_once(SIGNATURE)?;
        let signature = unhex::<64>(signature.strip_suffix('\n')?)?;
        let signer = VerifyingKey::from_bytes(&unhex(certificate.line(SIGNER)?)?).ok()?;
        let is_ours = signed.starts_with(TITLE) && signed.ends_with('\n');
        let signature = Signature::from_bytes(&signature);
        let is_signed = signer.verify_strict(signed.as_bytes(), &signature).is_ok();
        (is_ours && is_signed).then_some(certificate)
    }

    fn line(&self, start: &str) -> Option<&str> {
        self.text.lines().find_map(|line| line.strip_prefix(start))
    }
}

pub(super) fn hex(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(2 * bytes.len());
    for byte in bytes {
        write!(text, "{byte:02x}").expect("writing to a string does not fail");
    }
    text
}

/// Lower case only: one spelling for one value.
fn unhex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let digit = |digit: u8| match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    };
    let mut bytes = [0; N];
    if text.len() != 2 * N {
        return None;
    }
    for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(bytes)
}

impl Key {
    /// The signing key that this is the seed of.
    fn signing_key(&self) -> SigningKey {
        self.with_bytes(SigningKey::from_bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vault::tests::vector;
    use crate::vault::{Error, Handle};

    fn certificate(backups: &[&str]) -> Certificate {
        let backups = backups.iter().map(|name| (*name).to_owned()).collect();
        let seed = Key::fill_with(|key| {
            key.fill(7);
            Ok::<_, Error>(())
        });
        let removed = Timestamp::from_second(1_795_305_600).unwrap();
        let tombstone = Tombstone::new(Handle([0x53; 16]), 3, removed);
        let store_id = StoreId([0x11; 16]);
        Deletion { store_id, tombstone, now: removed, backups }.certify(&seed.unwrap())
    }

    #[test]
    fn a_certificate_verifies_and_says_who_signed_it_and_what_was_destroyed() {
        let certificate = certificate(&[]);
        let verified = Certificate::verify(certificate.as_str()).unwrap();
        assert_eq!(verified, certificate);
        assert_eq!(verified.handle(), "53".repeat(16));
        assert_eq!(
            verified.signer(),
            // RFC 8032's public key of the seed 07…07.
            "ea4a6c63e29c520abef5507b132ec5f9954776aebebe7b92421eea691446d22c"
        );
        assert!(verified.as_str().contains("terms of its key destroyed: 1 to 3\n"));
    }

    #[test]
    fn the_golden_certificate_is_signed_and_verifies_byte_for_byte() {
        const VECTOR: &str = include_str!("../../tests/vectors/certificate.txt");
        let text = String::from_utf8(vector(VECTOR, "certificate")).unwrap();
        assert_eq!(Certificate::verify(&text).unwrap().as_str(), text);
        let seed = Key::fill_with(|key| {
            key.copy_from_slice(&vector(VECTOR, "seed"));
            Ok::<_, Error>(())
        });
        let removed = Timestamp::from_second(1_795_305_600).unwrap();
        let deletion = Deletion {
            store_id: StoreId(vector(VECTOR, "store_id").try_into().unwrap()),
            tombstone: Tombstone::new(Handle([0x53; 16]), 3, removed),
            now: Timestamp::from_second(1_795_305_601).unwrap(),
            backups: vec!["one.backup".to_owned()],
        };
        assert_eq!(deletion.certify(&seed.unwrap()).as_str(), text);
    }

    #[test]
    fn the_backups_are_on_one_line_whatever_they_are_called() {
        let line = |backups: &[&str]| {
            let certificate = certificate(backups);
            assert_eq!(Certificate::verify(certificate.as_str()), Some(certificate.clone()));
            certificate.line("backups that still hold it: ").unwrap().to_owned()
        };
        assert_eq!(line(&[]), "none known");
        assert_eq!(line(&["/mnt/one", "two\nsigned by me"]), "/mnt/one, two\\nsigned by me");
    }

    #[test]
    fn a_certificate_that_was_changed_anywhere_does_not_verify() {
        let text = certificate(&["a"]).as_str().to_owned();
        for at in 0..text.len() {
            let mut bytes = text.clone().into_bytes();
            bytes[at] ^= 1;
            let changed = String::from_utf8(bytes).unwrap();
            assert_eq!(Certificate::verify(&changed), None, "byte {at}");
        }
        for length in 0..text.len() {
            assert_eq!(Certificate::verify(&text[..length]), None, "{length} bytes");
        }
        assert_eq!(Certificate::verify(&format!("{text}\n")), None);
        assert_eq!(Certificate::verify(""), None);
    }
}
