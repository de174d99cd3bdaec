"""PURE: what may enter an environment, who may sleep, what is masked, which backups stay."""
