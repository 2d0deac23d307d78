"""Vectors of files: folders of images and files of texts become one Parquet file, a column per model.

`inputs` lists what there is to embed and reads it, `pipeline` asks the models, `files` keeps what has been
computed and writes the output, `extract` puts them together, `comparing` tells how far two outputs differ.

    panic embed --folder photos PocketPixels -o features.parquet
"""
