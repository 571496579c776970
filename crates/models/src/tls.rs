//! TLS failures: what they mean and what to do about them.

use crate::Error;

/// Finds a TLS failure, which may be wrapped in an I/O error.
pub(crate) fn failure<'a>(why: &'a (dyn std::error::Error + 'static)) -> Option<&'a rustls::Error> {
    if let Some(tls) = why.downcast_ref() {
        return Some(tls);
    }
    // The `source` of an I/O error is the source of the error it wraps, not that error itself.
    match why.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref) {
        Some(inside) => failure(inside),
        None => failure(why.source()?),
    }
}

/// Explains what is wrong with the server's TLS and what to do. Retrying can help only in the last
/// case of the `match`.
pub(crate) fn meaning(base: &str, tls: &rustls::Error) -> Error {
    use rustls::AlertDescription::{
        AccessDenied, BadCertificate, CertificateRequired, HandshakeFailure, UnknownCA,
    };
    use rustls::CertificateError::{
        Expired, ExpiredContext, NotValidForName, NotValidForNameContext, UnknownIssuer,
    };
    use rustls::Error::{AlertReceived, InvalidCertificate, InvalidMessage};
    let hint = match tls {
        InvalidCertificate(UnknownIssuer) => {
            "this system does not trust its issuer; set SSL_CERT_FILE or ca_file to the issuer's certificate in PEM form"
        }
        InvalidCertificate(NotValidForName | NotValidForNameContext { .. }) => {
            "it is for another host; use the host name in the certificate"
        }
        InvalidCertificate(Expired | ExpiredContext { .. }) => {
            "it has expired; renew it, or correct this machine's clock"
        }
        InvalidCertificate(_) => "it is not accepted",
        InvalidMessage(_) => {
            return Error::Settings(format!(
                "{base} does not speak TLS; should its address start with http:// instead of https://?"
            ));
        }
        AlertReceived(CertificateRequired | BadCertificate | HandshakeFailure | UnknownCA | AccessDenied) => {
            return Error::Refused(format!(
                "{base} refused this client's certificate or requires one ({tls}); set client_cert_file and client_key_file"
            ));
        }
        // The handshake was cut off, or there is no common protocol version. A proxy may be failing
        // temporarily.
        _ => return Error::Transport(format!("no TLS connection to {base}: {tls}")),
    };
    Error::Refused(format!("the certificate of {base} was refused: {hint} ({tls})"))
}
