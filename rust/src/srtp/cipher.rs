//! Keys of one session: derivation (RFC 3711 4.3), ciphers, and the nonces of both kinds of packet. Ciphers come from
//! aws-lc-rs.
//!
//! What is left of keys when they are dropped: AES-GCM contexts lie on aws-lc's heap, which is zeroed as it is freed
//! (`OPENSSL_free`); `EncryptingKey` and `hmac::Key` zero themselves in `drop`; what is derived passes through
//! `Zeroizing` memory and salts are zeroed here. Not covered: copies that the compiler leaves on the stack while a key is
//! moved to its box, and registers.

use aws_lc_rs::aead::{self, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::cipher::{self, EncryptingKey, EncryptionContext, UnboundCipherKey};
use aws_lc_rs::hmac;
use zeroize::{Zeroize, Zeroizing};

use crate::error::UsageError;

/// Bytes of the authentication tags.
pub const CM_TAG: usize = 10;
pub const GCM_TAG: usize = 16;
const SALT: usize = 14;

/// A protection profile (RFC 5764 4.1.2, RFC 7714 14.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Profile {
    Aes128Gcm,
    Aes256Gcm,
    AesCm128HmacSha1,
}

impl Profile {
    /// By its name in DTLS, as OpenSSL spells it.
    pub fn by_name(name: &str) -> Option<Self> {
        Some(match name {
            "SRTP_AEAD_AES_128_GCM" => Self::Aes128Gcm,
            "SRTP_AEAD_AES_256_GCM" => Self::Aes256Gcm,
            "SRTP_AES128_CM_SHA1_80" => Self::AesCm128HmacSha1,
            _ => return None,
        })
    }

    pub fn key_length(self) -> usize {
        if self == Self::Aes256Gcm { 32 } else { 16 }
    }

    pub fn salt_length(self) -> usize {
        if self == Self::AesCm128HmacSha1 { SALT } else { 12 }
    }

    pub fn tag_length(self) -> usize {
        if self == Self::AesCm128HmacSha1 { CM_TAG } else { GCM_TAG }
    }
}

/// AES in counter mode with one key.
pub struct CounterMode(EncryptingKey);

impl CounterMode {
    pub fn new(key: &[u8]) -> Result<Self, UsageError> {
        let algorithm = if key.len() == 32 { &cipher::AES_256 } else { &cipher::AES_128 };
        UnboundCipherKey::new(algorithm, key)
            .and_then(EncryptingKey::ctr)
            .map(Self)
            .map_err(|_| UsageError::new("an AES key was refused"))
    }

    pub fn apply(&self, iv: [u8; 16], data: &mut [u8]) {
        // Fails only for a context of another mode.
        let done = self.0.less_safe_encrypt(data, EncryptionContext::Iv128(iv.into()));
        debug_assert!(done.is_ok());
    }
}

/// The key derivation of RFC 3711 4.3.1 with a key derivation rate of 0; a 96-bit salt ends in zeros (RFC 7714 11).
fn derive(master: &CounterMode, salt: &[u8], label: u8, out: &mut [u8]) {
    let mut iv = [0; 16];
    iv[..salt.len()].copy_from_slice(salt);
    iv[7] ^= label;
    out.zeroize();
    master.apply(iv, out);
}

/// What protects one kind of packet in one direction.
pub enum Cipher {
    Gcm { key: Box<LessSafeKey>, salt: [u8; 12] },
    CmHmac { key: Box<CounterMode>, salt: [u8; 16], auth: Box<hmac::Key> },
}

impl Cipher {
    /// `labels` starts at 0 for RTP and 3 for RTCP: encryption, authentication, salt (RFC 3711 4.3.2).
    pub fn new(profile: Profile, master: &CounterMode, master_salt: &[u8], labels: u8) -> Result<Self, UsageError> {
        let mut key = Zeroizing::new([0; 32]);
        let key = &mut key[..profile.key_length()];
        derive(master, master_salt, labels, key);
        if profile == Profile::AesCm128HmacSha1 {
            let mut auth = Zeroizing::new([0; 20]);
            derive(master, master_salt, labels + 1, &mut auth[..]);
            let mut salt = [0; 16];
            derive(master, master_salt, labels + 2, &mut salt[..SALT]);
            let auth = Box::new(hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, &auth[..]));
            return Ok(Self::CmHmac { key: Box::new(CounterMode::new(key)?), salt, auth });
        }
        let mut salt = [0; 12];
        derive(master, master_salt, labels + 2, &mut salt);
        let algorithm = if profile == Profile::Aes256Gcm { &aead::AES_256_GCM } else { &aead::AES_128_GCM };
        let key = UnboundKey::new(algorithm, key).map_err(|_| UsageError::new("an AES-GCM key was refused"))?;
        Ok(Self::Gcm { key: Box::new(LessSafeKey::new(key)), salt })
    }
}

impl Drop for Cipher {
    fn drop(&mut self) {
        match self {
            Self::Gcm { salt, .. } => salt.zeroize(),
            Self::CmHmac { salt, .. } => salt.zeroize(),
        }
    }
}

/// RFC 7714 8.1: 00 00, SSRC, rollover counter, sequence number, over the salt.
pub fn gcm_rtp_nonce(salt: &[u8; 12], ssrc: u32, index: u64) -> Nonce {
    let mut iv = *salt;
    xor(&mut iv[2..6], &ssrc.to_be_bytes());
    xor(&mut iv[6..12], &index.to_be_bytes()[2..]);
    Nonce::assume_unique_for_key(iv)
}

/// RFC 7714 9.1: 00 00, SSRC, 00 00, SRTCP index, over the salt.
pub fn gcm_rtcp_nonce(salt: &[u8; 12], ssrc: u32, index: u32) -> Nonce {
    let mut iv = *salt;
    xor(&mut iv[2..6], &ssrc.to_be_bytes());
    xor(&mut iv[8..12], &index.to_be_bytes());
    Nonce::assume_unique_for_key(iv)
}

/// RFC 3711 4.1.1: salt * 2^16 XOR SSRC * 2^64 XOR index * 2^16.
pub fn counter_iv(salt: &[u8; 16], ssrc: u32, index: u64) -> [u8; 16] {
    let mut iv = *salt;
    xor(&mut iv[4..8], &ssrc.to_be_bytes());
    xor(&mut iv[8..16], &(index << 16).to_be_bytes());
    iv
}

fn xor(into: &mut [u8], with: &[u8]) {
    for (octet, other) in into.iter_mut().zip(with) {
        *octet ^= other;
    }
}

pub fn sign(key: &hmac::Key, message: &[u8], tail: &[u8]) -> [u8; CM_TAG] {
    let mut context = hmac::Context::with_key(key);
    context.update(message);
    context.update(tail);
    let mut tag = [0; CM_TAG];
    tag.copy_from_slice(&context.sign().as_ref()[..CM_TAG]);
    tag
}
