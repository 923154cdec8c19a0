//! Cipher suites in OpenSSL's words. As there, they are about TLS 1.2; the suites of TLS 1.3 are always allowed.

use rustls::crypto::CryptoProvider;
use rustls::{CipherSuite, SupportedCipherSuite};

use crate::TlsError;

/// The suites of TLS 1.2 that are spoken, by OpenSSL's names.
const NAMES: [(&str, CipherSuite); 6] = [
    ("ECDHE-ECDSA-AES256-GCM-SHA384", CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384),
    ("ECDHE-ECDSA-AES128-GCM-SHA256", CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256),
    ("ECDHE-ECDSA-CHACHA20-POLY1305", CipherSuite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256),
    ("ECDHE-RSA-AES256-GCM-SHA384", CipherSuite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384),
    ("ECDHE-RSA-AES128-GCM-SHA256", CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256),
    ("ECDHE-RSA-CHACHA20-POLY1305", CipherSuite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256),
];

/// Of what is spoken, only what `asked` allows: names, groups, `A+B` for both, `!` or `-` to leave out.
pub fn restrict(provider: &mut CryptoProvider, asked: &str) -> Result<(), TlsError> {
    let mut allowed: Vec<CipherSuite> = Vec::new();
    let mut excluded: Vec<CipherSuite> = Vec::new();
    for word in asked.split([':', ',', ' ']).filter(|word| !word.is_empty() && !word.starts_with('@')) {
        match word.strip_prefix(['!', '-']) {
            Some(word) => excluded.extend(found(word)),
            None => allowed.extend(found(word.trim_start_matches('+'))),
        }
    }
    allowed.retain(|suite| !excluded.contains(suite));
    if allowed.is_empty() {
        let known = NAMES.map(|(name, _)| name).join(", ");
        return Err(TlsError::Ciphers { asked: asked.to_owned(), known });
    }
    provider.cipher_suites.retain(|suite| match suite {
        SupportedCipherSuite::Tls12(suite) => allowed.contains(&suite.common.suite),
        SupportedCipherSuite::Tls13(_) => true,
    });
    Ok(())
}

/// The suites that have all these names and groups.
fn found(word: &str) -> impl Iterator<Item = CipherSuite> {
    NAMES.iter().filter(move |(name, _)| word.split('+').all(|part| fits(name, part))).map(|(_, suite)| *suite)
}

/// Whether a suite has this name or is in this group.
fn fits(name: &str, word: &str) -> bool {
    let has = |part: &str| name.split('-').any(|found| found == part);
    match word {
        // Everything that is spoken here is in these.
        "ALL" | "DEFAULT" | "HIGH" | "ECDHE" | "EECDH" | "kECDHE" | "kEECDH" | "ECDH" | "AEAD" | "TLSv1.2" => true,
        "RSA" | "aRSA" => has("RSA"),
        "ECDSA" | "aECDSA" => has("ECDSA"),
        "AES" | "AESGCM" => has("GCM"),
        "AES128" | "AES256" | "CHACHA20" | "SHA256" | "SHA384" => has(word),
        _ => name == word,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn openssls_words() {
        // (asked, how many of the six of TLS 1.2 are left, `None`: refused)
        for (asked, left) in [
            ("HIGH:!aNULL:!MD5", Some(6)),
            ("ECDHE+AESGCM:ECDHE+CHACHA20:DHE+AESGCM", Some(6)),
            ("EECDH+AESGCM:!ECDSA", Some(2)),
            ("ECDHE-RSA-AES256-GCM-SHA384", Some(1)),
            ("ECDHE-RSA-AES256-GCM-SHA384:RC4-SHA:@SECLEVEL=2", Some(1)),
            ("DEFAULT:-AES128", Some(4)),
            ("RC4-SHA", None),
            ("ALL:!ALL", None),
            ("", None),
        ] {
            let mut provider = rustls::crypto::ring::default_provider();
            let result = restrict(&mut provider, asked);
            let of_12 = provider.cipher_suites.iter().filter(|suite| suite.tls13().is_none()).count();
            match left {
                Some(left) => assert_eq!((result.is_ok(), of_12), (true, left), "{asked}"),
                None => assert!(result.expect_err("refused").to_string().contains(asked), "{asked}"),
            }
            assert!(provider.cipher_suites.iter().any(|suite| suite.tls13().is_some()), "{asked}");
        }
    }
}
