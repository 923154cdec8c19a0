//! SASL's mechanism DIGEST-MD5 (RFC 2831), the client's side, as ZooKeeper asks for it. Pure: a challenge in, an answer out.
//!
//! Only authentication is asked for (`qop=auth`), neither integrity nor encryption: ZooKeeper offers none, TLS does both. MD5 is the mechanism's
//! own and no good any more; it is here for ensembles that want it, and belongs inside TLS.

use std::collections::BTreeMap;

use md5::{Digest, Md5};

/// The service and the host that ZooKeeper's servers take for theirs, whatever they are called.
const URI: &str = "zookeeper/zk-sasl-md5";
const REALM: &str = "zk-sasl-md5";

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SaslError {
    #[error("the server's challenge is not one of DIGEST-MD5")]
    Challenge,
    #[error("the server does not offer plain authentication (`qop` is `{0}`)")]
    Protection(String),
    /// It does not know the password either.
    #[error("the server cannot prove that it knows this user")]
    Impostor,
}

/// An exchange of which the answer is under way.
#[derive(Debug)]
pub struct Exchange {
    /// What the server must say to prove that it knows the password.
    expected: String,
}

impl Exchange {
    /// Answers the server's first challenge. `client_nonce`: never used before, of letters and digits.
    pub fn answer(
        challenge: &[u8],
        username: &str,
        password: &str,
        client_nonce: &str,
    ) -> Result<(Vec<u8>, Exchange), SaslError> {
        let challenge = directives(challenge).ok_or(SaslError::Challenge)?;
        let get = |key: &str| challenge.get(key).map(String::as_str);
        let nonce = get("nonce").ok_or(SaslError::Challenge)?;
        if get("algorithm") != Some("md5-sess") {
            return Err(SaslError::Challenge);
        }
        let offered = get("qop").unwrap_or("auth");
        if !offered.split(',').any(|word| word.trim() == "auth") {
            return Err(SaslError::Protection(offered.to_owned()));
        }
        let credentials = Credentials {
            username,
            realm: get("realm").unwrap_or(REALM),
            password,
            nonce,
            client_nonce,
            uri: URI,
            utf8: get("charset") == Some("utf-8"),
        };
        let Credentials { realm, uri, .. } = credentials;
        let charset = if credentials.utf8 { "charset=utf-8," } else { "" };
        let answer = format!(
            "{charset}username={},realm={},nonce={},nc=00000001,cnonce={},digest-uri={},maxbuf=65536,response={},qop=auth",
            quoted(username),
            quoted(realm),
            quoted(nonce),
            quoted(client_nonce),
            quoted(uri),
            credentials.proof("AUTHENTICATE"),
        );
        let answer = if credentials.utf8 { answer.into_bytes() } else { bytes(&answer, false) };
        Ok((answer, Exchange { expected: credentials.proof("") }))
    }

    /// Whether the server's last word proves that it knows the password, too.
    pub fn finish(self, last_word: &[u8]) -> Result<(), SaslError> {
        let said = directives(last_word).and_then(|mut said| said.remove("rspauth"));
        if said == Some(self.expected) { Ok(()) } else { Err(SaslError::Impostor) }
    }
}

struct Credentials<'a> {
    username: &'a str,
    realm: &'a str,
    password: &'a str,
    nonce: &'a str,
    client_nonce: &'a str,
    uri: &'a str,
    utf8: bool,
}

impl Credentials<'_> {
    /// `response-value` of the RFC, section 2.1.2.1.
    fn proof(&self, method: &str) -> String {
        // With UTF-8 agreed upon, what fits into ISO 8859-1 is hashed in that all the same.
        let secret = [self.username, self.realm, self.password].map(|text| bytes(text, self.utf8)).join(&b':');
        let mut a1 = Md5::digest(secret).to_vec();
        a1.extend_from_slice(format!(":{}:{}", self.nonce, self.client_nonce).as_bytes());
        let a2 = format!("{method}:{}", self.uri);
        let (a1, a2) = (hex(&a1), hex(a2.as_bytes()));
        hex(format!("{a1}:{}:00000001:{}:auth:{a2}", self.nonce, self.client_nonce).as_bytes())
    }
}

/// In ISO 8859-1 where that has all the letters, else in UTF-8.
fn bytes(text: &str, utf8: bool) -> Vec<u8> {
    let narrow: Option<Vec<u8>> = text.chars().map(|c| u8::try_from(u32::from(c)).ok()).collect();
    match narrow {
        Some(narrow) => narrow,
        None if utf8 => text.as_bytes().to_vec(),
        // There is no way to say it.
        None => text.chars().map(|c| u8::try_from(u32::from(c)).unwrap_or(b'?')).collect(),
    }
}

/// The hash, in hexadecimal.
fn hex(text: &[u8]) -> String {
    Md5::digest(text).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

/// `name=value` and `name="value"` with commas between them.
fn directives(text: &[u8]) -> Option<BTreeMap<String, String>> {
    let text = std::str::from_utf8(text).ok()?;
    let mut found = BTreeMap::new();
    let mut rest = text.trim_start_matches([',', ' ']);
    while !rest.is_empty() {
        let (name, after) = rest.split_once('=')?;
        let (value, after) = match after.strip_prefix('"') {
            Some(quoted) => unquoted(quoted)?,
            None => {
                let end = after.find(',').unwrap_or(after.len());
                (after[..end].trim().to_owned(), &after[end..])
            }
        };
        // Several realms may be offered; the first will do.
        found.entry(name.trim().to_ascii_lowercase()).or_insert(value);
        rest = after.trim_start_matches([',', ' ']);
    }
    Some(found)
}

/// The text up to the closing quote, and what follows.
fn unquoted(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut letters = text.char_indices();
    while let Some((at, letter)) = letters.next() {
        match letter {
            '"' => return Some((value, &text[at + 1..])),
            '\\' => value.push(letters.next()?.1),
            other => value.push(other),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Section 4 of the RFC.
    #[test]
    fn the_example_of_the_rfc() {
        let credentials = Credentials {
            username: "chris",
            realm: "elwood.innosoft.com",
            password: "secret",
            nonce: "OA6MG9tEQGm2hh",
            client_nonce: "OA6MHXh6VqTrRk",
            uri: "imap/elwood.innosoft.com",
            utf8: true,
        };
        assert_eq!(credentials.proof("AUTHENTICATE"), "d388dad90d4bbd760a152321f2143af7");
        assert_eq!(credentials.proof(""), "ea40f60335c427b5527b84dbabcdfffd");
    }

    #[test]
    fn an_exchange() {
        let challenge = br#"realm="zk-sasl-md5",nonce="a\"b",charset=utf-8,algorithm=md5-sess, qop="auth,auth-int""#;
        let (answer, exchange) = Exchange::answer(challenge, r#"o"u"#, "p", "c").expect("a good challenge");
        let said = directives(&answer).expect("directives");
        assert_eq!(
            (said["username"].as_str(), said["nonce"].as_str(), said["qop"].as_str()),
            (r#"o"u"#, "a\"b", "auth")
        );
        assert_eq!(said["response"].len(), 32);
        let right = format!("rspauth={}", exchange.expected);
        assert_eq!(exchange.finish(right.as_bytes()), Ok(()));
        for (challenge, wrong) in [
            (&b"nonce=a"[..], SaslError::Challenge),
            (b"algorithm=md5-sess", SaslError::Challenge),
            (b"nonce=\"a", SaslError::Challenge),
            (b"nonce=a,algorithm=md5-sess,qop=auth-conf", SaslError::Protection("auth-conf".into())),
        ] {
            assert_eq!(Exchange::answer(challenge, "u", "p", "c").expect_err("refused"), wrong);
        }
        let (_, exchange) = Exchange::answer(challenge, "u", "p", "c").expect("a good challenge");
        assert_eq!(exchange.finish(b"rspauth=ea40f60335c427b5527b84dbabcdfffd"), Err(SaslError::Impostor));
    }

    proptest! {
        #[test]
        fn any_challenge_gets_an_answer(challenge in proptest::collection::vec(any::<u8>(), 0..80), text in ".{0,60}") {
            let _ = Exchange::answer(&challenge, "u", "p", "c");
            let _ = Exchange::answer(text.as_bytes(), &text, &text, "c");
        }
    }
}
