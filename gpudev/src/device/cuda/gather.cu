// Checks received frames and puts their pieces in their places. One thread block a frame.
//
// The layout of Frame and Piece is that of FrameEntry and PieceEntry in gather.rs, whose
// run_on_host does the same by the CPU. Only the common subset of CUDA and C++ is used, so that a
// test can run this on a CPU as well.

typedef unsigned char byte;
typedef unsigned int u32;
typedef unsigned long long u64;

struct Frame {
    u64 data;
    u32 len;
    u32 checked;
    u32 crc;
    u32 first_piece;
    u32 pieces;
    u32 reserved;
};

struct Piece {
    u64 to;
    u32 at;
    u32 len;
};

#define THREADS 128u
#define PLACED 1u
#define CORRUPT 2u
// CRC32C (RFC 3720, appendix B.4), bits reversed: bit 31 stands for x^0.
#define POLYNOMIAL 0x82F63B78u
#define ONE 0x80000000u
#define X_TO_8 0x00800000u

// The product of two polynomials over GF(2), modulo the polynomial.
__device__ u32 multiply(u32 left, u32 right)
{
    u32 product = 0;
    for (u32 bit = ONE; bit != 0; bit >>= 1) {
        if (left & bit)
            product ^= right;
        right = (right >> 1) ^ ((right & 1) ? POLYNOMIAL : 0);
    }
    return product;
}

// x^(8 * bytes): what `bytes` bytes behind it do to a checksum's register.
__device__ u32 past(u32 bytes)
{
    u32 power = ONE;
    for (u32 square = X_TO_8; bytes != 0; bytes >>= 1) {
        if (bytes & 1)
            power = multiply(power, square);
        square = multiply(square, square);
    }
    return power;
}

__device__ void copy(byte *to, const byte *from, u32 len, u32 thread)
{
    if ((((u64)to | (u64)from) & 15) == 0) {
        u32 wide = len / 16;
        for (u32 i = thread; i < wide; i += THREADS)
            ((uint4 *)to)[i] = ((const uint4 *)from)[i];
        for (u32 i = wide * 16 + thread; i < len; i += THREADS)
            to[i] = from[i];
    } else {
        for (u32 i = thread; i < len; i += THREADS)
            to[i] = from[i];
    }
}

extern "C" __global__ void genie_gather(const Frame *frames, const Piece *pieces, u32 *verdicts)
{
    __shared__ u32 table[256];
    __shared__ u32 parts[THREADS];
    __shared__ u32 sound;

    const u32 thread = threadIdx.x;
    const Frame frame = frames[blockIdx.x];
    const byte *data = (const byte *)frame.data;

    if (frame.checked) {
        for (u32 i = thread; i < 256; i += THREADS) {
            u32 entry = i;
            for (int bit = 0; bit < 8; bit++)
                entry = (entry >> 1) ^ ((entry & 1) ? POLYNOMIAL : 0);
            table[i] = entry;
        }
        __syncthreads();

        // The last thread takes the last bytes, and so on; the first may have fewer, which is as if
        // zeroes came before them, and those leave an empty register empty.
        const u32 share = (frame.len + THREADS - 1) / THREADS;
        const u32 behind = (THREADS - 1 - thread) * share;
        const u32 end = frame.len > behind ? frame.len - behind : 0;
        const u32 start = end > share ? end - share : 0;
        u32 part = 0;
        for (u32 i = start; i < end; i++)
            part = table[(part ^ data[i]) & 0xff] ^ (part >> 8);
        parts[thread] = part;

        u32 shift = past(share);
        for (u32 stride = 1; stride < THREADS; stride *= 2) {
            __syncthreads();
            if (thread % (2 * stride) == 0)
                parts[thread] = multiply(shift, parts[thread]) ^ parts[thread + stride];
            shift = multiply(shift, shift);
        }
        if (thread == 0) {
            const u32 found = ~(multiply(past(frame.len), ~0u) ^ parts[0]);
            sound = found == frame.crc;
        }
    } else if (thread == 0) {
        sound = 1;
    }
    __syncthreads();

    if (sound) {
        for (u32 i = 0; i < frame.pieces; i++) {
            const Piece piece = pieces[frame.first_piece + i];
            copy((byte *)piece.to, data + piece.at, piece.len, thread);
        }
        __syncthreads();
    }
    if (thread == 0) {
        // What was placed is seen by others before the verdict is.
        __threadfence_system();
        verdicts[blockIdx.x] = sound ? PLACED : CORRUPT;
    }
}
