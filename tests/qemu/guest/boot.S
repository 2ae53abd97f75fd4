/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * From the PVH entry (32 bits, flat, no paging) to guest_main() in long mode, with the first
 * 16 GiB mapped one to one. No interrupt but the timer's ever comes.
 */
	.section .note.Xen, "a", @note
	.align 4
	.long 4, 4, 18			/* XEN_ELFNOTE_PHYS32_ENTRY */
	.asciz "Xen"
	.long start

	.text
	.code32
	.globl start
start:
	cld
	cli
	mov	%ebx, start_info

	/* Page tables: one of level 4, one of level 3, sixteen that map 2 MiB an entry. */
	mov	$level3, %eax
	or	$3, %eax		/* present, writable */
	mov	%eax, level4
	mov	$16, %ecx
	mov	$level2, %eax
	or	$3, %eax
	mov	$level3, %edi
1:	mov	%eax, (%edi)
	add	$4096, %eax
	add	$8, %edi
	loop	1b
	mov	$0x83, %eax		/* present, writable, 2 MiB */
	xor	%edx, %edx
	mov	$level2, %edi
	mov	$8192, %ecx
2:	mov	%eax, (%edi)
	mov	%edx, 4(%edi)
	add	$8, %edi
	add	$0x200000, %eax
	adc	$0, %edx
	loop	2b

	mov	%cr4, %eax
	or	$0x20, %eax		/* physical address extension */
	mov	%eax, %cr4
	mov	$level4, %eax
	mov	%eax, %cr3
	mov	$0xc0000080, %ecx	/* EFER */
	rdmsr
	or	$0x100, %eax		/* long mode */
	wrmsr
	mov	%cr0, %eax
	or	$0x80000001, %eax	/* paging, protection */
	mov	%eax, %cr0
	lgdt	gdt_register
	ljmp	$8, $start64

	.code64
start64:
	mov	$16, %eax
	mov	%eax, %ds
	mov	%eax, %es
	mov	%eax, %ss
	mov	%eax, %fs
	mov	%eax, %gs
	mov	$stack_top, %rsp
	mov	start_info, %edi
	call	guest_main

	.globl on_timer
on_timer:				/* end of interrupt, and back behind the hlt */
	push	%rax
	mov	$0xfee000b0, %eax
	movl	$0, (%rax)
	pop	%rax
	iretq

	.section .rodata
	.align 8
gdt:	.quad 0, 0x00af9a000000ffff, 0x00cf92000000ffff
gdt_register:
	.word gdt_register - gdt - 1
	.long gdt

	.bss
	.align 4096
level4:	.skip 4096
level3:	.skip 4096
level2:	.skip 4096 * 16
stack:	.skip 16384
stack_top:
start_info:
	.skip 8

	.section .note.GNU-stack, "", @progbits
