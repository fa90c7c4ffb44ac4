//! Messages of extensions: handed to whom they are for.

use std::future::poll_fn;
use std::task::Poll;

use super::{Failure, Translator};
use crate::frontend::native::errors;
use crate::frontend::native::extensions::Caller;
use crate::proto::native::{Message, Severity};

impl Translator {
    pub(super) async fn extension(
        &mut self,
        id: u64,
        name: String,
        payload: Vec<u8>,
    ) -> Result<(), Failure> {
        if !self.extensions.agreed.contains(&name) {
            let text = format!("the extension \"{name}\" was not agreed");
            return Err(errors::not_supported(text));
        }
        let told = |error| Box::new(errors::of_error(&error, Severity::Error));
        let registry = self.extensions.registry.clone();
        let handler =
            registry.handler(&name, &self.config.now().native.extensions.0).map_err(told)?;
        let caller = Caller {
            session: self.session,
            role: self.role.as_str().into(),
            database: self.types.database.clone(),
        };
        let mut answer = handler.answer(&caller, payload);
        let payload = poll_fn(|cx| match self.check_cancelled() {
            Err(cancelled) => Poll::Ready(Err(cancelled)),
            Ok(()) => answer.as_mut().poll(cx).map_err(told),
        })
        .await?;
        self.answer(id, &Message::Extension { name, payload }).await
    }
}
