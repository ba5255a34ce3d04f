"""What the trainers share: plain tensors, modules and arguments. Nothing here knows Dassl or its config."""
