#include "../kernel.h"
#include <linux/hex.h>
