"""Operations on boxes that torchvision lacks, and the stand-in for mmcv's compiled ones."""
