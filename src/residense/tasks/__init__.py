"""Tasks: LightningModules made of embeddings, an encoder and a head."""
