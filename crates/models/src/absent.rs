//! A stand-in for a model that was closed or could not be opened.

use crate::{DeltaStream, Error, Identity, Model, Request};

/// A model whose requests all fail with an error that is not retried.
#[derive(Debug)]
pub struct Absent(pub String);

#[async_trait::async_trait]
impl Model for Absent {
    fn identity(&self) -> Identity {
        Identity::default()
    }

    async fn stream(&self, _: &Request) -> Result<DeltaStream, Error> {
        Err(Error::NoModel(self.0.clone()))
    }
}
