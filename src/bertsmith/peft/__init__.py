"""Which parameters move: a method changes a small part of an encoder, and only that part is saved."""
