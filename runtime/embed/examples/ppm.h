/* Reads images that need no library: binary PPM ("P6"), 8 bits a channel. In C and C++. */
#ifndef PPM_H
#define PPM_H

#include <stdio.h>
#include <stdlib.h>

typedef struct ppm_image {
  unsigned char *pixels; /* RGB, rows from above, packed; give it to free() */
  int width, height;
} ppm_image;

/* A number of the header, with blanks and comments before it; -1 where there is none. */
static inline int ppm_number(FILE *file) {
  int c = fgetc(file);
  while (c == ' ' || c == '\t' || c == '\r' || c == '\n' || c == '#') {
    if (c == '#')
      while (c != '\n' && c != EOF) c = fgetc(file);
    c = fgetc(file);
  }
  if (c < '0' || c > '9') return -1;
  int number = 0;
  for (; c >= '0' && c <= '9'; c = fgetc(file)) {
    if (number > 100000) return -1;
    number = 10 * number + (c - '0');
  }
  return number; /* and the one blank behind it is read */
}

/* 1, and the image; or 0, and nothing to free. */
static inline int ppm_read(const char *path, ppm_image *image) {
  FILE *file = fopen(path, "rb");
  if (file == NULL) return 0;
  int good = fgetc(file) == 'P' && fgetc(file) == '6';
  image->pixels = NULL;
  image->width = good ? ppm_number(file) : -1;
  image->height = good ? ppm_number(file) : -1;
  good = good && ppm_number(file) == 255 && image->width > 0 && image->height > 0;
  if (good) {
    size_t size = 3 * (size_t)image->width * (size_t)image->height;
    image->pixels = (unsigned char *)malloc(size);
    good = image->pixels != NULL && fread(image->pixels, 1, size, file) == size;
  }
  if (!good) free(image->pixels);
  fclose(file);
  return good;
}

#endif
