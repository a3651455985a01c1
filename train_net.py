"""Train, evaluate or dry-run a detector from a config file, on GPUs or CPUs.

python train_net.py --config-file configs/quickstart.yaml
python train_net.py --config-file configs/quickstart.yaml --resume
python train_net.py --config-file configs/quickstart.yaml --eval-only --resume
python train_net.py --config-file configs/quickstart.yaml --dry-run
python train_net.py --config-file projects/CenterNet/configs/quickstart_centernet.yaml
"""

from retinanet_ext.cli.train import main, run

__all__ = ["main", "run"]

if __name__ == "__main__":
    run()
