"""Write the model of a run that is not finished, from its newest checkpoint, whoever wrote it.

    python recipes/export.py run=outputs/r1_zero
    python recipes/export.py run=outputs/r1_zero step=400

The folder that it names is a plain transformers folder, for model.path= of any other recipe.
"""

from typing import Any

from lightning_r1.config.compose import recipe


@recipe("export")
def main(config: dict[str, Any]) -> None:
    """Import late: ``--help`` should not wait for torch."""
    from lightning_r1.export import export

    export(config)


if __name__ == "__main__":
    main()
