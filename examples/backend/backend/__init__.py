"""An analytics backend: four read endpoints over marts, scoped to the user who asks."""
