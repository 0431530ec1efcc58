//! SOCKS 5 (RFC 1928), the part that is offered: no authentication, `CONNECT`, names and addresses.
//!
//! Who the plugin is comes from the listener, so there is nothing to authenticate. `BIND` and
//! `UDP ASSOCIATE` would let something in or go round the guard and are refused.

use std::net::{Ipv4Addr, Ipv6Addr};

use palisade_model::ErrorCode;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::pump::Side;
use crate::{Authority, EgressError, Host};

/// The version byte of every message.
pub(super) const VERSION: u8 = 5;
const NO_AUTHENTICATION: u8 = 0;
const NO_METHOD: u8 = 0xff;
const CONNECT: u8 = 1;
const IPV4: u8 = 1;
const NAME: u8 = 3;
const IPV6: u8 = 4;

/// The reply codes that are used (RFC 1928, section 6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reply {
    Succeeded = 0,
    GeneralFailure = 1,
    NotAllowed = 2,
    HostUnreachable = 4,
    ConnectionRefused = 5,
    TimedOut = 6,
    CommandNotSupported = 7,
    AddressNotSupported = 8,
}

impl Reply {
    /// The code that tells a client most about `error`.
    pub(super) fn to(error: &EgressError) -> Self {
        match error {
            EgressError::Connect { cause, .. }
                if cause.kind() == std::io::ErrorKind::ConnectionRefused =>
            {
                Self::ConnectionRefused
            }
            EgressError::BadHost(_) => Self::AddressNotSupported,
            error => match error.code() {
                ErrorCode::Denied | ErrorCode::RateLimited => Self::NotAllowed,
                ErrorCode::NotFound | ErrorCode::Unavailable => Self::HostUnreachable,
                ErrorCode::Deadline => Self::TimedOut,
                _ => Self::GeneralFailure,
            },
        }
    }
}

/// Reads the greeting and the request: where the client wants to. What is wrong was answered.
pub(super) async fn request(side: &mut Side) -> Result<Authority, EgressError> {
    let read = &mut side.read;
    if read.read_u8().await? != VERSION {
        return Err(EgressError::BadRequest("it is not SOCKS 5"));
    }
    let mut methods = vec![0; read.read_u8().await?.into()];
    read.read_exact(&mut methods).await?;
    if !methods.contains(&NO_AUTHENTICATION) {
        side.write.write_all(&[VERSION, NO_METHOD]).await?;
        return Err(EgressError::BadRequest("it offers no SOCKS method without authentication"));
    }
    side.write.write_all(&[VERSION, NO_AUTHENTICATION]).await?;
    let mut head = [0; 4];
    read.read_exact(&mut head).await?;
    let [VERSION, command, 0, form] = head else {
        return Err(EgressError::BadRequest("its SOCKS request is broken"));
    };
    let host = match form {
        IPV4 => {
            let mut octets = [0; 4];
            read.read_exact(&mut octets).await?;
            Ok(Host::from(std::net::IpAddr::from(Ipv4Addr::from(octets))))
        }
        IPV6 => {
            let mut octets = [0; 16];
            read.read_exact(&mut octets).await?;
            Ok(Host::from(std::net::IpAddr::from(Ipv6Addr::from(octets))))
        }
        NAME => {
            let mut name = vec![0; read.read_u8().await?.into()];
            read.read_exact(&mut name).await?;
            Host::parse_bytes(&name)
        }
        _ => {
            reply(side, Reply::AddressNotSupported).await?;
            return Err(EgressError::BadRequest("its SOCKS address has an unknown form"));
        }
    };
    let port = read.read_u16().await?;
    if command != CONNECT {
        reply(side, Reply::CommandNotSupported).await?;
        return Err(EgressError::BadRequest("of the SOCKS commands there is only CONNECT"));
    }
    match host.and_then(|host| Authority::new(host, port)) {
        Ok(authority) => Ok(authority),
        Err(error) => {
            reply(side, Reply::to(&error)).await?;
            Err(error)
        }
    }
}

/// Answers the request. The address in it says nothing about this machine.
pub(super) async fn reply(side: &mut Side, reply: Reply) -> Result<(), EgressError> {
    let message = [VERSION, reply as u8, 0, IPV4, 0, 0, 0, 0, 0, 0];
    Ok(side.write.write_all(&message).await?)
}
