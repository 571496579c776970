//! Failures of TLS: what they mean and what to do about them.

use crate::Error;

/// A failure of TLS, which hides in I/O errors.
pub(crate) fn failure<'a>(why: &'a (dyn std::error::Error + 'static)) -> Option<&'a rustls::Error> {
    if let Some(tls) = why.downcast_ref() {
        return Some(tls);
    }
    // The source of an I/O error is that of the error in it.
    match why.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref) {
        Some(inside) => failure(inside),
        None => failure(why.source()?),
    }
}

/// What is wrong with the server's end of TLS, and what to do. None of it goes away by itself.
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
            "this system does not trust who issued it; name its issuer's certificate, as PEM, in SSL_CERT_FILE or ca_file"
        }
        InvalidCertificate(NotValidForName | NotValidForNameContext { .. }) => {
            "it is for another host; reach the server by the name in its certificate"
        }
        InvalidCertificate(Expired | ExpiredContext { .. }) => {
            "it has expired; renew it, or set this machine's clock right"
        }
        InvalidCertificate(_) => "it is not accepted",
        InvalidMessage(_) => {
            return Error::Settings(format!(
                "{base} does not speak TLS; is its address http:// in place of https://?"
            ));
        }
        AlertReceived(CertificateRequired | BadCertificate | HandshakeFailure | UnknownCA | AccessDenied) => {
            return Error::Refused(format!(
                "{base} refused this client's certificate, or the lack of one ({tls}); name one with client_cert_file and client_key_file"
            ));
        }
        // Cut off in the handshake, or no common version: that may be a passing fault of what stands before the server.
        _ => return Error::Transport(format!("no TLS connection to {base}: {tls}")),
    };
    Error::Refused(format!("the certificate of {base} was refused: {hint} ({tls})"))
}
