"""For the reference: what the stub of a package imports `as` itself is public."""

from typing import Any

import griffe

from tf_spline_prune._public_names import homes_of


class PublicNames(griffe.Extension):
    """Make the names of stubs public, as type checkers take them."""

    def on_package(self, *, pkg: griffe.Module, **kwargs: Any) -> None:
        """Go through a package and the packages in it."""
        for module in pkg.modules.values():
            if module.is_init_module and not module.is_alias:
                self.on_package(pkg=module)
        file = pkg.filepath
        if not isinstance(file, list) and file.with_suffix(".pyi").exists():
            pkg.exports = [*homes_of(str(file))]
